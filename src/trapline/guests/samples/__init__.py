"""Sample guests: each raises the exception of its name, and reports it on COM1.

They need a CPU, 2 MiB of RAM, COM1 at 0x3F8 and isa-debug-exit at 0xF4, which they end with: 0 where all was as
expected. Each is built from Python when it is asked for.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Final

from trapline.errors import UsageError
from trapline.guests.formats import multiboot
from trapline.guests.guest import Guest, GuestKind

from .exceptions import EXCEPTIONS
from .programs import PROGRAMS
from .sample import End, Sample
from .second_cpu import SECOND_CPU
from .shutdowns import SHUTDOWNS

__all__ = ["SAMPLES", "End", "Sample", "find_sample", "sample_guest"]

SAMPLES: Final = (*EXCEPTIONS, *PROGRAMS, *SHUTDOWNS, *SECOND_CPU)


def find_sample(name: str) -> Sample:
    """Return the sample of that name; raises UsageError with the names that come near."""
    by_name = {sample.name: sample for sample in SAMPLES}
    found = by_name.get(name.lower().removeprefix("#"))
    if found is not None:
        return found
    near = get_close_matches(name.lower(), by_name, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`trapline samples` lists them"
    raise UsageError(f"no sample guest is called {name!r}; {hint}")


def sample_guest(name: str) -> Guest:
    """Build the sample of that name."""
    sample = find_sample(name)
    image = sample.build()
    return Guest(
        Path(f"sample:{sample.name}"),
        GuestKind.MULTIBOOT,
        f"sample guest: {sample.description}",
        image,
        header=multiboot.find(image),
        in_memory=True,
        cpus=sample.cpus,
    )
