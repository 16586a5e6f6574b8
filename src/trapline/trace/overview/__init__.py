"""What a report shows of many records: counts over time, the places with the most, who raised them. One pass."""

from .overview import COLUMNS, NEWEST, Overview, Rare, Share, VectorTotal, overview
from .packed import PackedAxis, pack
from .places import Place
from .timeline import Axis

__all__ = [
    "COLUMNS",
    "NEWEST",
    "Axis",
    "Overview",
    "PackedAxis",
    "Place",
    "Rare",
    "Share",
    "VectorTotal",
    "overview",
    "pack",
]
