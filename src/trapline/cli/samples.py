"""`trapline samples`: lists the sample guests."""

import json
import sys

from trapline.arch.vectors import VECTORS
from trapline.guests.samples import SAMPLES

from .table import print_table


def samples(*, as_json: bool) -> int:
    """Print each sample guest with the exceptions that it raises and how it ends."""
    if as_json:
        rows = [
            {
                "name": sample.name,
                "description": sample.description,
                "vectors": [int(vector) for vector in sample.vectors],
                "end": sample.end.name.lower(),
            }
            for sample in SAMPLES
        ]
        json.dump(rows, sys.stdout, indent=2)
        print()
        return 0
    print_table(
        ("sample", "raises", "ends by", "what it is"),
        [
            (
                sample.name,
                " ".join(VECTORS[vector].mnemonic for vector in sample.vectors),
                sample.end.value,
                sample.description,
            )
            for sample in SAMPLES
        ],
    )
    print("\nrun one with: trapline run sample:NAME")
    return 0
