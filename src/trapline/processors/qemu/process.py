"""A QEMU process and the memory shared with it. Nothing has a file name, so nothing is left over when it is killed."""

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import IO, Final, NamedTuple

from trapline.errors import LaunchError, ProcessorError, ProcessorLost
from trapline.signals import HeldSignals

from .child import Child
from .command import Descriptors, by_number

_PR_SET_PDEATHSIG: Final = 1
_OUTPUT_TAIL: Final = 1 << 14
_PATIENCE: Final = 5.0
"""Seconds that QEMU has to end by itself after it was asked to."""


class QemuEnded(ProcessorLost):
    """QEMU has ended while it was to do something for the host."""

    def __init__(self) -> None:
        super().__init__("QEMU ended while the guest was stopped")


class Files(NamedTuple):
    """Files of this process that QEMU gets."""

    stdin: int | None = None
    """Its standard input; None: ours."""
    stdout: int | IO[bytes] | None = None
    inherited: tuple[int, ...] = ()
    """Further ones, by number, which its options name."""


NO_FILES: Final = Files()


class QemuProcess:
    """QEMU, started with `arguments(descriptors)`; ends with us, however we end."""

    def __init__(
        self,
        arguments: Callable[[Descriptors], list[str]],
        *,
        monitor: int,
        firmware: bytes,
        variables: bytes = b"",
        files: Files = NO_FILES,
    ) -> None:
        """Start QEMU. `monitor` is the size of the shared memory in bytes, `files` are those of ours that it gets.

        `variables` is the content of a second flash chip, if any.

        Raises LaunchError when QEMU cannot be started, ProcessorError when there is no room for the memory.
        """
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._closing.close)
            shared = self._memory("monitor", monitor)
            self.monitor = shared[1]
            image = self._file("firmware", firmware)
            second = self._file("variables", variables) if variables else None
            log = os.memfd_create("trapline-log", os.MFD_CLOEXEC)
            self._closing.callback(os.close, log)
            self.doorbell, doorbell = self._pair()
            self.qmp, qmp = self._pair()
            self.gdb, gdb = self._pair()
            self._errors = self._closing.enter_context(os.fdopen(os.memfd_create("trapline-errors"), "w+b"))
            theirs = [doorbell, qmp, gdb]
            descriptors = Descriptors(
                *(shared[0], image, doorbell.fileno(), qmp.fileno(), gdb.fileno(), log),
                variables=second,
            )
            self.command = arguments(descriptors)
            self.log = log if "-D" in self.command and by_number(log) in self.command else None
            """QEMU's log of resets; None: it writes none, or one of the user's."""
            with HeldSignals():
                self.process = self._start([*filter(None, descriptors), *files.inherited], files)
                undo.callback(self.process.end, _PATIENCE)
            for one in theirs:
                one.close()
            self.doorbell.setblocking(False)
            undo.pop_all()

    def errors(self) -> str:
        """Return the end of what QEMU wrote on its stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-_OUTPUT_TAIL:]

    def launch_error(self) -> LaunchError:
        """Return the error that tells why QEMU did not start the machine."""
        output = self.errors()
        last = output.splitlines()[-1] if output else "it printed nothing"
        return LaunchError(
            f"QEMU did not start the machine: {last}",
            command=self.command,
            returncode=self.process.poll(),
            output=output,
        )

    def wait(self) -> None:
        """Wait a while for QEMU to end, which has hung up already."""
        self.process.wait(_PATIENCE)

    def close(self) -> None:
        """End QEMU and release all memory. Safe to call twice."""
        self.process.end(_PATIENCE)
        self._closing.close()

    def _memory(self, name: str, size: int) -> tuple[int, memoryview]:
        descriptor = os.memfd_create(f"trapline-{name}", os.MFD_CLOEXEC)
        self._closing.callback(os.close, descriptor)
        try:
            os.ftruncate(descriptor, size)
            mapped = mmap.mmap(descriptor, size)
        except (OSError, ValueError, OverflowError) as error:
            raise ProcessorError(f"no room for {size >> 20} MiB of guest memory: {error}") from error
        return descriptor, memoryview(mapped)

    def _file(self, name: str, content: bytes) -> int:
        descriptor, memory = self._memory(name, len(content))
        memory[:] = content
        return descriptor

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        self._closing.enter_context(ours)
        self._closing.enter_context(theirs)
        return ours, theirs

    def _start(self, inherited: Sequence[int], files: Files) -> Child:
        parent = os.getpid()
        libc = ctypes.CDLL(None, use_errno=True)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        try:
            return Child(
                subprocess.Popen(
                    self.command,
                    pass_fds=inherited,
                    stdin=files.stdin,
                    stdout=files.stdout,
                    stderr=self._errors,
                    preexec_fn=die_with_parent,
                )
            )
        except OSError as error:
            raise LaunchError(
                f"QEMU could not be started: {error.strerror}: {self.command[0]}",
                command=self.command,
                returncode=None,
                output="",
            ) from error
