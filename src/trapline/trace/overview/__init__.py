"""What a report shows of many records: counts over time, the places with the most, who raised them. One pass."""

from .overview import COLUMNS, Overview, Rare, Share, VectorTotal, overview
from .packed import PackedAxis, pack
from .places import Place
from .timeline import Axis

__all__ = [
    "COLUMNS",
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
