"""The paths of a source: where a compiler found it, and where a user has it, which may be another machine's disk."""

import posixpath
from collections.abc import Iterable
from typing import NamedTuple


class SourcePath(NamedTuple):
    """A path as a file of symbols has it."""

    directory: str
    """The directory of the compilation; empty: unknown."""
    file: str
    """Relative to it, if it is inside."""

    @property
    def name(self) -> str:
        """Without directories."""
        return posixpath.basename(self.file)

    @property
    def whole(self) -> str:
        """With the directory of the compilation."""
        return posixpath.normpath(posixpath.join(self.directory, self.file))


def best(wanted: SourcePath, found: Iterable[SourcePath]) -> frozenset[SourcePath]:
    """Return those paths that are most likely of the same file as `wanted`; empty: none is.

    The directories of the compilation may be gone, or have been in a container: of all paths those are taken that have
    most of their end in common with `wanted`, but at least what was inside that directory, or else two names.
    """
    ranked: dict[int, set[SourcePath]] = {}
    for path in found:
        same = _common_end(wanted.whole, path.whole)
        inside = len(_parts(posixpath.normpath(path.file)))
        if same and same >= min(inside, 2):
            ranked.setdefault(same, set()).add(path)
    return frozenset(ranked[max(ranked)]) if ranked else frozenset()


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _common_end(one: str, other: str) -> int:
    """Return how many names two paths have in common, counted from their ends."""
    pairs = zip(reversed(_parts(one)), reversed(_parts(other)), strict=False)
    count = 0
    for mine, its in pairs:
        if mine != its:
            break
        count += 1
    return count
