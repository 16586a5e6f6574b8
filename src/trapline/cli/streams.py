"""Which of a command's outputs is on stdout: data has it alone, and what is for people then goes to stderr."""

from collections.abc import Mapping
from typing import Final

from trapline.errors import UsageError
from trapline.session.clash import descriptor_of

STDOUT: Final = "/dev/stdout"


def output_name(given: str | None) -> str | None:
    """Return the name of an output file: `-` is stdout, by whatever other name it was given too."""
    return STDOUT if given is not None and (given == "-" or descriptor_of(given) == 1) else given


def check_claims(claims: Mapping[str, bool]) -> None:
    """Raise UsageError where several options want stdout."""
    wanting = [option for option, wants in claims.items() if wants]
    if len(wanting) > 1:
        raise UsageError(f"{' and '.join(wanting)} both write to stdout: give one of them a file")
