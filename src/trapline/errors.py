"""The tree of errors.

    TraplineError               anything that the command line reports as one message, without a traceback
    ├── UsageError              the user asked for something that cannot be done
    │   └── GuestImageError     a guest image cannot be loaded
    ├── MissingExtra            a library of an optional extra is not installed
    ├── FaultError              an address of the guest cannot be accessed
    ├── GuestFailed             a guest ended badly, or violated a rule
    └── ProcessorError          a processor failed
        ├── LaunchError         it did not start; with its command, exit status and last output
        │   └── ProcessorMissing    a program that it needs is not installed
        ├── ProcessorLost       it ran, and then exited or stopped answering
        └── MonitorDamaged      the guest, or a device for it, wrote over trapline's monitor

An *exception* is raised in the guest; an *error* is raised by trapline.
"""

from collections.abc import Sequence
from typing import ClassVar


class TraplineError(Exception):
    """Anything that the command line reports as one message, without a traceback."""

    exit_code: ClassVar[int] = 1
    """The exit code of the command line: 1, for UsageError 2, for GuestFailed 5."""


class UsageError(TraplineError):
    """Wrong input or use; the message says what is accepted."""

    exit_code: ClassVar[int] = 2


class GuestImageError(UsageError):
    """A guest image cannot be loaded."""


class MissingExtra(TraplineError):
    """A library of an optional extra is not installed; the message says what to install."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed; install it with: pip install 'trapline[{extra}]'")


class FaultError(TraplineError):
    """An address of the guest, linear or physical, cannot be accessed."""

    def __init__(self, address: int, reason: str = "it is not mapped") -> None:
        """Keep the first address that could not be accessed."""
        super().__init__(f"cannot access {address:#x}: {reason}")
        self.address: int = address
        """The first address that could not be accessed."""


class GuestFailed(TraplineError):
    """A guest ended badly, or violated a rule; the message says why, with the explanation if there is one."""

    exit_code: ClassVar[int] = 5


class ProcessorError(TraplineError):
    """A processor failed."""


class LaunchError(ProcessorError):
    """A processor could not be started."""

    def __init__(
        self,
        message: str,
        *,
        command: Sequence[str] = (),
        returncode: int | None = None,
        output: str = "",
        tail: int = 20,
    ) -> None:
        """Keep the command, its exit status (None: it did not run) and the last `tail` lines of its output."""
        super().__init__(message)
        self.command: tuple[str, ...] = tuple(command)
        """The command line of the process; empty: there is none."""
        self.returncode: int | None = returncode
        """Its exit status; None: it did not run."""
        self.output: str = "\n".join(output.rstrip().splitlines()[-tail:])
        """The last lines of its output."""

    def __str__(self) -> str:
        parts = [str(self.args[0])]
        if self.command:
            parts.append("command: " + " ".join(self.command))
        if self.returncode is not None:
            parts.append(f"exit status: {self.returncode}")
        if self.output:
            parts.append("output:\n" + self.output)
        return "\n".join(parts)


class ProcessorMissing(LaunchError):
    """A program or firmware that a processor needs is not installed; the message says what to install."""


class ProcessorLost(ProcessorError):
    """A processor that ran has exited, crashed, was killed, or does not answer any more."""


class MonitorDamaged(ProcessorError):
    """The memory of trapline's monitor in QEMU was written over. What was recorded before is kept."""

    def __init__(self, what: str, *, isolated: bool, q35: bool = False) -> None:
        """Make the sentence: `what` is the damage; `isolated`: the guest's CPU cannot reach the memory."""
        if isolated:
            message = f"trapline's monitor was damaged ({what}) although --isolate keeps the guest's CPU away from it"
        else:
            message = f"the guest damaged trapline's monitor ({what}); use --isolate"
            message += ", which needs a pc machine" if q35 else ""
        super().__init__(message)
