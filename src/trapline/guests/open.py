"""The guest that the user names: a sample, or a file."""

from pathlib import Path

from .guest import Guest
from .recognise import recognise

_SAMPLE_PREFIX = "sample:"


def open_guest(name: str) -> Guest:
    """Return the guest that the user names: a sample as `sample:NAME`, else a file."""
    if name.startswith(_SAMPLE_PREFIX):
        from .samples import sample_guest  # loads the assembler, which no other guest needs

        return sample_guest(name.removeprefix(_SAMPLE_PREFIX))
    return recognise(Path(name))
