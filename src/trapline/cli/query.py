"""`trapline query`: SQL over traces."""

import argparse
import json
import math
import sys
from itertools import islice
from typing import Any, Final

from trapline.report import tables
from trapline.trace.questions import sql
from trapline.trace.questions.groups import written

from .table import print_table
from .terminal import tell
from .traces import reading

_LIMIT: Final = 100
"""Rows of a table, unless asked for."""


def query(options: argparse.Namespace) -> int:
    """Print the rows of a SELECT over the table `trace`."""
    with reading(options) as records:
        answer = sql.query(records, options.sql)
        if options.json:
            _print_json(answer, options.limit)
        else:
            _print_table(answer, options.limit or _LIMIT)
    return 0


def _print_json(answer: sql.Answer, limit: int | None) -> None:
    between = "["
    for row in islice(answer.rows, limit):
        values = {name: _written(name, value) for name, value in zip(answer.columns, row, strict=True)}
        sys.stdout.write(between + json.dumps(values, default=str))
        between = ",\n"
    sys.stdout.write("]\n" if between != "[" else "[]\n")


def _written(name: str, value: Any) -> Any:  # noqa: ANN401  # of any type of SQL
    """Return a value for JSON, which has neither infinity nor NaN."""
    if isinstance(value, list | tuple):
        return [_written("", each) for each in value]
    if isinstance(value, dict):
        return {str(key): _written("", each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else written(name, value)


def _print_table(answer: sql.Answer, limit: int) -> None:
    rows = list(islice(answer.rows, limit))
    more = next(answer.rows, None) is not None
    numbers = [place for place in range(len(answer.columns)) if all(_is_number(row[place]) for row in rows)]
    cells = [tuple(map(_cell, answer.columns, row)) for row in rows]
    print_table(answer.columns, cells, right=numbers)
    if more:
        tell(f"\nthe first {limit:,} rows; --limit shows more")


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(name: str, value: Any) -> str:  # noqa: ANN401  # of any type of SQL
    if value is None or isinstance(value, bool | int | str):
        return tables.cell(name, value)
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
