"""What a report shows of many records: counts over time, the places with the most, who raised them. One pass."""

from .overview import Overview, Rare, Share, VectorTotal, overview
from .places import Place
from .timeline import Axis

__all__ = ["Axis", "Overview", "Place", "Rare", "Share", "VectorTotal", "overview"]
