"""A command of `trapline`, as the parser adds it."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

_NONE: Final[Mapping[str, Any]] = {}


class Verb(NamedTuple):
    """A command's name, what it does in a few words, and its options."""

    name: str
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    settings: Mapping[str, Any] = _NONE
    """Further arguments of its ArgumentParser."""
