"""The guest that the user names: a sample, or a file."""

from pathlib import Path

from trapline.errors import UsageError

from .guest import Guest, GuestKind
from .recognise import recognise

_SAMPLE_PREFIX = "sample:"


def open_guest(name: str, medium: GuestKind | None = None) -> Guest:
    """Return the guest that the user names: `sample:NAME`, or else a file, which `recognise` takes as a medium."""
    if name.startswith(_SAMPLE_PREFIX):
        if medium is not None:
            raise UsageError("--media is for images that a BIOS boots, not for samples")
        from .samples import sample_guest  # loads the assembler, which no other guest needs

        return sample_guest(name.removeprefix(_SAMPLE_PREFIX))
    return recognise(Path(name), medium)
