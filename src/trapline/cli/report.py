"""`trapline report` and `trapline stat`: what is counted in traces."""

import argparse
import json
import sys
from typing import Any, Final

from trapline.report import tables
from trapline.trace.questions import groups as grouping
from trapline.trace.questions import over_time, totals
from trapline.trace.reading import Reading

from .traces import print_answer, reading

_LIMIT: Final = 20
"""Rows of a table, unless asked for."""


def report(options: argparse.Namespace) -> int:
    """Print how many exceptions have the same keys."""
    if options.html is not None:
        from .report_html import report_html

        return report_html(options)
    by_time = options.by.strip().lower() == "time"
    keys = () if by_time else grouping.read_keys(options.by)
    with reading(options) as records:
        if by_time:
            answer = over_time.over_time(records, options.limit)
            return _print(options, records, over_time.document(answer), answer.total, tables.of_time(answer))
        limit = options.limit or (None if options.json else _LIMIT)
        counted = grouping.groups(records, keys, sort=options.sort, limit=limit)
        return _print(options, records, grouping.document(counted), counted.total, tables.of_groups(counted))


def stat(options: argparse.Namespace) -> int:
    """Print how many exceptions of each vector there are."""
    with reading(options) as records:
        answer, rate = totals.totals(records), totals.rate_of(records.metadata)
        return _print(options, records, totals.document(answer, rate), answer.total, tables.of_totals(answer, rate))


def _print(
    options: argparse.Namespace, records: Reading, document: dict[str, Any], total: int, table: tables.Table
) -> int:
    if options.json:
        json.dump({"traces": [run.name for run in records.runs], **document}, sys.stdout)
        print()
    else:
        print_answer(records, total, table)
    return 0
