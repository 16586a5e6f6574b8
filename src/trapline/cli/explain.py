"""`trapline explain`: explains the double and triple faults in a file that `run -o` wrote."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any

from trapline.asm.disassembler import instruction
from trapline.errors import UsageError
from trapline.explain.blackbox import chains
from trapline.explain.evidence import TYPE, Evidence, from_json
from trapline.explain.explain import explain
from trapline.report import text
from trapline.symbols import Names

from .terminal import width_of


def explain_file(name: str, names: Names, *, syntax: str, as_json: bool) -> int:
    """Print the explanation of each double and triple fault of a stored run, oldest first."""
    try:
        with Path(name).open(encoding="utf-8") as file:
            evidence, died = _evidence(name, file)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: run -o did not write this file") from error
    found = chains(evidence)
    shown = partial(instruction, syntax=syntax)
    explanations = [
        (chain, explain(chain, name=names.text, disassemble=shown))
        for chain in found
        if any(piece.fatal for piece in chain)
    ]
    if as_json:
        json.dump(
            [{"seq": chain[-1].sequence, **explanation.to_json()} for chain, explanation in explanations], sys.stdout
        )
        print()
        return 0
    for chain, explanation in explanations:
        record = chain[-1].sequence
        title = "at the end" if record is None else f"up to record {record}"
        print("\n".join(text.explanation(title, explanation, width_of(sys.stdout))))
    if not explanations and died:
        print("the file has a double or triple fault, but no evidence to explain it")
    elif not explanations:
        print("the file has no double or triple fault")
    return 0


def _evidence(name: str, file: IO[str]) -> tuple[list[Evidence], bool]:
    """Return the evidence, and whether some exception became a #DF or a shutdown."""
    found, died = [], False
    for number, line in enumerate(file, 1):
        if not line.endswith("\n"):
            break  # a run that was killed
        try:
            fields: Any = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{name}: line {number} is not JSON: run -o did not write this file") from error
        if not isinstance(fields, dict):
            raise UsageError(f"{name}: line {number} is not a record: run -o did not write this file")
        if fields.get("type") == TYPE:
            found.append(from_json(fields))
        died |= fields.get("outcome") in ("combined", "shutdown")
    return found, died
