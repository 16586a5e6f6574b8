"""The report of a trace as one HTML file: everything is in it, and it may load nothing."""

from .page import page
from .values import Explained, Fact, Page, Section

__all__ = ["Explained", "Fact", "Page", "Section", "page"]
