"""Reads a file as a command does. What is wrong with the reading is a Fault."""

import contextlib
import gc
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from trapline.cli.main import main
from trapline.errors import TraplineError
from trapline.guests.boot import Entry, bare_entry
from trapline.guests.qemu import qemu_options
from trapline.guests.recognise import raw_image, recognise
from trapline.machine.boot import Boot
from trapline.session.symbols import open_names
from trapline.trace.files import open_trace

_MEMORY: Final = 64 << 20
_STEP: Final = 7
"""Bytes from one address that is looked up to the next."""
_LOOKUPS: Final = 200


class Fault(Exception):
    """A file was read in a way that is not allowed; the message says how."""


def _image(path: Path) -> bool:
    guest = recognise(path)
    with contextlib.suppress(TraplineError):
        qemu_options(guest)
    boot = bare_entry(guest, memory=_MEMORY, entry=Entry(boot_sector=True))
    if isinstance(boot, Boot) and sum(len(data) for _, data in boot.loads) > _MEMORY:
        raise Fault("more is loaded than RAM holds")
    open_names((), guest)
    bare_entry(raw_image(path), memory=_MEMORY, entry=Entry(16))
    return True


def _symbols(path: Path) -> bool:
    names = open_names([f"{path}@0"], None)
    for file in names.files:
        functions = list(file.addresses(_Everything()).values())
        for start in functions[:: max(len(functions) // _LOOKUPS, 1)]:
            for address in range(start, start + 5 * _STEP, _STEP):
                names.text(address)
        len(file.variables)
    return True


class _Everything(frozenset[str]):
    def __contains__(self, name: object) -> bool:
        return True


def _command(*words: str) -> Callable[[Path], bool]:
    def run(path: Path) -> bool:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([*words, str(path)])
        gc.unfreeze()  # main freezes what is left at its end, and thousands of them would be too much
        printed, told = out.getvalue(), err.getvalue()
        if status not in (0, 2):
            raise Fault(f"exit code {status}: {told}")
        if told.count("\n") != (1 if status or words[0] == "import" else 0):
            raise Fault(f"not one line: {told}")
        for line in (*printed.splitlines(), *told.splitlines()):
            if not line.isprintable():
                raise Fault(f"control characters: {line!r}")
        return status == 0

    return run


def _columns(path: Path) -> bool:
    with open_trace(path) as trace:
        sum(batch.num_rows for batch in trace.batches())
        sum(len(notes) for _, notes in trace.pieces())
    return True


def _both(first: Callable[[Path], bool], second: Callable[[Path], bool]) -> Callable[[Path], bool]:
    return lambda path: first(path) & second(path)


_READERS: Final[dict[str, Callable[[Path], bool]]] = {
    "images": _image,
    "symbols": _symbols,
    "maps": _symbols,
    "runs": _command("explain"),
    "evidence": _command("explain", "--json"),
    **{form: _both(_command("explain"), _columns) for form in ("jsonl.zst", "arrow", "parquet")},
    "logs": _command("import", "-o", os.devnull, "qemu-int"),
}


def read(kind: str, path: Path) -> bool:
    """Read a file; return whether it was accepted. Raises Fault, and whatever should not be raised."""
    try:
        return _READERS[kind](path)
    except TraplineError as error:
        message = str(error.args[0])
        if "\n" in message:
            raise Fault(f"not one line: {message}") from error
        return False
