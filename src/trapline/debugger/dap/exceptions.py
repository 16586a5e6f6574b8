"""Exception filters: one for each vector that can be forced, and one for the shutdown; and what an exception was."""

from typing import Final, NamedTuple

from trapline.arch.vectors import FORCEABLE, VECTORS, Vector
from trapline.debugger.target import Catch, Target
from trapline.errors import UsageError
from trapline.hypervisor.stop import StopReason

from . import bodies
from .arguments import FilterOption

SHUTDOWN: Final = "shutdown"
_SHUTDOWN_TEXT: Final = "Stop at a triple fault, in the state before the reset"
_CONDITION: Final = "a condition on the exception, such as cpl == 0 and address < 0x1000"
_VECTORS: Final = {row.mnemonic.removeprefix("#").lower(): row for row in VECTORS if FORCEABLE >> row.vector & 1}
"""The rows of the vectors by the names of their filters."""
DEFAULT: Final = ("df", SHUTDOWN)
"""The filters that are on unless the client says otherwise."""


class Caught(NamedTuple):
    """The filters that are on."""

    catches: tuple[Catch, ...]
    shutdown: bool


def filters() -> list[bodies.ExceptionFilter]:
    """Return all filters."""
    return [
        bodies.ExceptionFilter(SHUTDOWN, "Shutdown (triple fault)", _SHUTDOWN_TEXT, SHUTDOWN in DEFAULT),
        *(
            bodies.ExceptionFilter(
                name,
                f"{row.mnemonic} {row.name}",
                f"Stop where {row.mnemonic} is raised, before the guest sees it",
                name in DEFAULT,
                True,
                _CONDITION,
            )
            for name, row in _VECTORS.items()
        ),
    ]


def set_filters(target: Target, options: list[FilterOption]) -> list[bodies.Breakpoint]:
    """Stop at these exceptions and no others; return for each filter whether it is set, or why it is not."""
    for catch in target.catches:
        target.release(catch)
    return [_set(target, option) for option in options]


def _set(target: Target, option: FilterOption) -> bodies.Breakpoint:
    try:
        _catch(target, option.filter_id, option.condition)
    except UsageError as error:
        return bodies.Breakpoint(False, message=str(error))
    return bodies.Breakpoint(True)


def _catch(target: Target, name: str, condition: str | None) -> None:
    if name == SHUTDOWN:
        if condition:
            raise UsageError("a shutdown has no condition")
    elif name in _VECTORS:
        target.catch(f"{name} if {condition}" if condition else name)
    else:
        raise UsageError(f"there is no exception filter {name!r}")


def exception_info(target: Target) -> bodies.ExceptionInfo:
    """Return what is known of the exception, or of the shutdown, at which the guest is stopped.

    Raises UsageError where it is stopped at neither.
    """
    stop = target.stop
    if stop.exception is None and stop.reason is not StopReason.SHUTDOWN:
        raise UsageError(f"the guest is not stopped at an exception: {stop.reason.value}")
    explanation = target.explain()
    origin = None if explanation is None else explanation.origin
    cause = "" if explanation is None else explanation.cause or (origin.sentence if origin else None) or ""
    if stop.exception is None:
        kind, name, place = "shutdown", "shutdown (triple fault)", "the guest shut down"
    else:
        row = VECTORS[Vector(stop.exception.vector)]
        kind, name, place = row.mnemonic, f"{row.mnemonic} {row.name}", str(stop.exception)
    whole = place if explanation is None else str(explanation)
    return bodies.ExceptionInfo(
        name,
        "always",
        cause or place,
        bodies.ExceptionDetails(cause or place, kind, name, whole),
    )
