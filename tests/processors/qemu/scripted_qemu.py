"""A QEMU that is a thread: it takes the monitor's turns in the shared memory and plays a script of exits."""

import contextlib
import socket
import threading
import time

from trapline.arch import cpuid
from trapline.arch.exits import ExitCode
from trapline.arch.registers import EFER
from trapline.arch.vmcb import Vmcb
from trapline.errors import LaunchError
from trapline.processors.qemu.facts import MANUAL
from trapline.processors.qemu.layout import ASIDE_AT, Command, Owner, SharedMemory

MIB = 1 << 20
FACTS = MANUAL._replace(version=(7, 2, 22))


class Process:
    returncode = None

    def poll(self):
        return self.returncode


class Qemu:
    """Plays the machine: a thread takes the monitor's turns and plays a script of exits."""

    command = ("qemu", "-cpu", "qemu64,-svm")
    woke_up = False
    devices = 'dev: i440FX, id ""\n  class Host bridge, addr 00:00.0, pci id 8086:1237 (sub 1af4:1100)\n'
    """The answer to `info qtree`."""
    reason = None
    """Of the SHUTDOWN event."""
    exit_status = 0
    log = None

    def __init__(self, script, memory):
        self.monitor, self.ram = memory, memoryview(bytearray(2 * MIB))
        self.doorbell, self._bell = socket.socketpair()
        self.doorbell.setblocking(False)
        self.qmp, self._qmp = socket.socketpair()
        self.gdb, self._gdb = socket.socketpair()
        self.process = Process()
        self.shared = SharedMemory(memory)
        self.commands, self.outputs = [], []
        self.aside, self.asides, self.answers = Vmcb.from_buffer(memory, ASIDE_AT), [], iter(())
        self.nmi = threading.Event()
        self._script = iter(script)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._play)

    def start(self):
        self._thread.start()

    def end(self, status):
        self.process.returncode = status
        self._bell.close()

    def errors(self):
        return "out of order"

    def launch_error(self):
        return LaunchError("QEMU did not start the machine")

    def wait(self):
        pass

    def close(self):
        self._closed.set()
        if self._thread.ident:
            self._thread.join(10)
        for one in (self.doorbell, self._bell, self.qmp, self._qmp, self.gdb, self._gdb):
            one.close()

    def _play(self):
        mailbox = self.shared.mailbox
        begun = False
        while not self._closed.is_set() and self.process.returncode is None:
            if mailbox.owner == Owner.HOST:
                time.sleep(0.0001)
                continue
            command = mailbox.command if begun else None
            self.commands.append(command)
            begun = True
            if command == Command.CPUID:
                gprs = self.shared.gprs
                gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx = gprs.rax + 1, 2, gprs.rcx + 3, 4
            elif command == Command.OUT:
                self.outputs.append((mailbox.port, mailbox.value))
            elif command == Command.EXIT:
                self.end(self.exit_status)
                return
            elif command == Command.ASIDE:
                self.asides.append(self.aside.save.rip)
                self.aside.control.exit_code, answer = next(self.answers, (ExitCode.VMMCALL, 0))
                self.aside.save.rax, self.shared.gprs.rdx = answer & 0xFFFF_FFFF, answer >> 32
            else:
                step = next(self._script, None)
                if step is None:
                    self.end(0)
                    return
                self.shared.vmcb.control.intercept_exceptions = mailbox.intercepts
                step(self)
                if self.process.returncode is not None:
                    return
            mailbox.owner = Owner.HOST
            with contextlib.suppress(OSError):
                self._bell.send(b"\0")


class Block:
    """The RAM as the process holds it, found without looking for it."""

    def locate(self, offset, token):
        self.found = (offset, token)

    def close(self):
        pass


def power_on(qemu):
    mailbox = qemu.shared.mailbox
    mailbox.reset, mailbox.efer, mailbox.signature = 1, EFER.SVME | EFER.LME, 0x663


def described(address_bits, features=cpuid.LONG_MODE):
    """The firmware waits for the place of the shared memory."""

    def step(qemu):
        mailbox = qemu.shared.mailbox
        mailbox.placing, mailbox.features, mailbox.address_bits = 1, features, address_bits

    return step


def leave(code, info_1=0):
    def step(qemu):
        qemu.shared.vmcb.control.exit_code, qemu.shared.vmcb.control.exit_info_1 = code, info_1

    return step
