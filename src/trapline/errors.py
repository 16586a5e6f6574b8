"""The tree of errors.

    TraplineError               anything trapline reports instead of a traceback
    ├── UsageError              the user asked for something that cannot be done
    │   └── GuestImageError     the file or bytes to run are not what they claim to be
    ├── MissingExtra            a library of an optional extra is not installed
    ├── FaultError              an address of the guest cannot be accessed
    ├── GuestFailed             a guest ended badly, or did not keep a rule that a test has for it
    └── ProcessorError          what executes VMRUN failed
        ├── LaunchError         it did not start: command, status and last output attached
        │   └── ProcessorMissing    a program that it needs is not installed
        └── ProcessorLost       it ran and then went away

An *exception* is always the guest's; what goes wrong on this side is an *error*.
"""

from collections.abc import Sequence
from typing import ClassVar


class TraplineError(Exception):
    """Anything trapline reports as a sentence rather than a traceback."""

    exit_code: ClassVar[int] = 1
    """What the command line exits with: 1, of UsageError 2, of GuestFailed 5."""


class UsageError(TraplineError):
    """Bad input by the user; the message says what would be accepted."""

    exit_code: ClassVar[int] = 2


class GuestImageError(UsageError):
    """A guest image cannot be loaded."""


class MissingExtra(TraplineError):
    """A library of an optional extra is not installed; the message says what to install."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed; pip install 'trapline[{extra}]' brings it")


class FaultError(TraplineError):
    """An address of the guest, linear or physical, cannot be accessed."""

    def __init__(self, address: int, reason: str = "it is not mapped") -> None:
        """Keep the first address that could not be accessed."""
        super().__init__(f"cannot access {address:#x}: {reason}")
        self.address: int = address
        """The first address that could not be accessed."""


class GuestFailed(TraplineError):
    """A guest ended badly, or did not keep a rule; the message says why, with the explanation where there is one."""

    exit_code: ClassVar[int] = 5


class ProcessorError(TraplineError):
    """A processor failed to do what it promised."""


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
        """Keep the command, its status (None: it never ran) and the last `tail` lines of its output."""
        super().__init__(message)
        self.command: tuple[str, ...] = tuple(command)
        """The command; empty: there was none."""
        self.returncode: int | None = returncode
        """Its exit status; None: it never ran."""
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
    """A processor that ran is gone: it exited, was killed or no longer answers."""
