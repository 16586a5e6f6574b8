"""Opens a trace by what its file contains."""

import io
import os
import stat
from pathlib import Path
from typing import Final, TypeAlias

from trapline.errors import MissingExtra, UsageError
from trapline.trace.libraries import need_pyarrow

from .jsonl import JsonSource
from .trace import Source, Trace, blaming
from .writer import PART, VIEWS

PathLike: TypeAlias = str | os.PathLike[str]

_PARQUET: Final = b"PAR1"
_ARROW: Final = b"\xff\xff\xff\xff"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_VIEW: Final = "it is for Perfetto's viewer alone: name the trace that it was made of"
_NOT: Final = "not a trace: neither JSON lines, plain or in zstd, nor an Arrow stream nor Parquet as run -o writes"


def open_trace(path: PathLike) -> Trace:
    """Open a trace that `trapline run -o` or `trapline import` wrote, also of a run that was killed.

    JSON lines, also compressed by zstd, Arrow streams and Parquet are recognised by their content. Raises
    UsageError for any other file, and MissingExtra for one whose library is not installed.
    """
    name = os.fspath(path)
    with blaming(name):
        return Trace(name, _source(name))


def _source(name: str) -> Source:
    part = name + PART
    try:
        file = Path(name).open("rb")  # noqa: SIM115  # the trace closes it
    except FileNotFoundError:
        if Path(part).exists():
            return _source(part)
        raise
    try:
        source = _recognised(name, file)
    except BaseException:
        file.close()
        raise
    if source is None:
        file.close()
        if not Path(part).exists():
            raise UsageError(f"its end is missing, as of a run that was killed, and {part} is not there")
        return _source(part)
    return source


def _recognised(name: str, file: io.BufferedReader) -> Source | None:
    """Return what reads a file; None: the file is not complete."""
    head = file.peek(8)[:8]
    if head.startswith(b"{"):
        return JsonSource(file)
    if head.startswith(_ZSTD):
        return JsonSource(_decompressed(file))
    seekable = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    if not head and seekable and Path(name + PART).exists():
        return None
    if not head.startswith((_PARQUET, _ARROW)):
        if head and name.endswith(tuple(view.suffix for view in VIEWS)):
            raise UsageError(_VIEW)
        raise UsageError(_NOT if head else f"it is empty, {_NOT}")
    if not seekable:
        raise UsageError("only JSON lines can be read from a pipe")
    need_pyarrow()
    if not head.startswith(_PARQUET):
        from .arrow import ArrowSource

        return ArrowSource(file)
    from .parquet import ParquetSource

    file.seek(-min(len(_PARQUET), os.fstat(file.fileno()).st_size), os.SEEK_END)
    if file.read() != _PARQUET or os.fstat(file.fileno()).st_size < 3 * len(_PARQUET):
        return None
    return ParquetSource(file)


def _decompressed(file: io.BufferedReader) -> io.BufferedReader:
    try:
        from .frames import FramesReader
    except ImportError:
        raise MissingExtra("zstandard", "trace") from None
    return io.BufferedReader(FramesReader(file), 1 << 16)
