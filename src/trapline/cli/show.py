"""`trapline show`: the records of traces, one by one."""

import argparse
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from trapline.report.qemu_blocks import block
from trapline.trace.exception_record import line_of
from trapline.trace.files.layout import STORED, StoredColumns
from trapline.trace.json_block import json_block
from trapline.trace.questions.rows import rows
from trapline.trace.reading import Reading
from trapline.typed import printable

from .traces import reading


def show(options: argparse.Namespace) -> int:
    """Print each record."""
    with reading(options) as records:
        for text in islice(_FORMATS["json" if options.json else options.format](records), options.limit):
            sys.stdout.write(text)
    return 0


def _lines(records: Reading) -> Iterator[str]:
    for row in rows(records):
        yield printable(f"{row.seq:8}  {line_of(row)}").replace("\n", "\\n") + "\n"


def _blocks(records: Reading) -> Iterator[str]:
    for row in rows(records, registers=True):
        yield "".join(f"{line}\n" for line in block(row))


def _json(records: Reading) -> Iterator[str]:
    for batch in records.batches(STORED):
        for line in json_block(StoredColumns(batch)).splitlines(keepends=True):
            yield line.decode("ascii")


_FORMATS: Final[dict[str, Callable[[Reading], Iterator[str]]]] = {
    "trapline": _lines,
    "qemu": _blocks,
    "json": _json,
}
