"""`trapline vectors`: lists the exception vectors."""

import json
import sys
import textwrap

from trapline.arch.vectors import VECTORS, Vector

from .table import print_table
from .terminal import tell

_NAMED = frozenset(Vector)


def vectors(*, as_json: bool) -> int:
    """Print each vector with its properties and whether it may be forced."""
    if as_json:
        rows = [
            {
                "vector": row.vector,
                "mnemonic": row.mnemonic,
                "name": row.name,
                "kind": row.kind.value,
                "class": row.cls.value,
                "error_code": row.error_code.name.lower(),
                "forceable": row.refused is None,
                "refused": row.refused,
            }
            for row in VECTORS
        ]
        json.dump(rows, sys.stdout, indent=2)
        print()
        return 0
    print_table(
        ("vector", "", "name", "kind", "class", "code", "may be forced"),
        [
            (
                f"{row.vector}",
                row.mnemonic if row.vector in _NAMED else "",
                row.name,
                row.kind.value,
                row.cls.value,
                {"ABSENT": "-", "ZERO": "0"}.get(row.error_code.name, "yes"),
                "no" if row.refused else "yes",
            )
            for row in VECTORS
        ],
        right=(0,),
    )
    reasons: dict[str, list[str]] = {}
    for row in VECTORS:
        if row.refused:
            reasons.setdefault(row.refused, []).append(str(row.vector))
    print("\nnot forced:")
    for reason, numbers in reasons.items():
        tell(textwrap.fill(f"{', '.join(numbers)}: {reason}", 80, initial_indent="  ", subsequent_indent="      "))
    return 0
