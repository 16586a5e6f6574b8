"""`trapline record`: a run whose exceptions go to a file that is named after the guest."""

import argparse
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from .run import run
from .streams import STDOUT, output_name
from .terminal import tell
from .termination import Termination

_SAMPLE: Final = "sample:"
_UNNAMED: Final = "trapline"
"""The name where QEMU's options name the guest."""
_SUFFIX: Final = re.compile(r"(.+)\.[A-Za-z]{1,6}", re.DOTALL)
"""A file's suffix; versions, as of vmlinuz-6.1.0, are none."""


def record(options: argparse.Namespace, qemu_options: list[str], termination: Termination) -> int:
    """Run a guest, print its result and the name of the file, and return the exit code."""
    if options.output is None:
        options.output = default_name(options.guest)
    code = run(options, qemu_options, termination)
    if output_name(options.output) != STDOUT:
        tell(f"trace: {options.output}", file=sys.stderr)
    return code


def default_name(guest: str | None) -> str:
    """Return the name of the file, in the working directory: kernel.elf is recorded in kernel.parquet.

    Without pyarrow it is kernel.jsonl.
    """
    name = _UNNAMED if guest is None else guest.removeprefix(_SAMPLE) if guest.startswith(_SAMPLE) else Path(guest).name
    match = _SUFFIX.fullmatch(name)
    suffix = ".jsonl" if find_spec("pyarrow") is None else ".parquet"
    return (match[1] if match else name or _UNNAMED) + suffix
