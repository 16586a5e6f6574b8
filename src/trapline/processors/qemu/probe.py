"""Asks a QEMU what it does, by guests of a few instructions: see `facts`.

The guests are in the memory that is shared with the monitor and use the monitor's own page tables. Each is entered with
a whole VMCB, and leaves by CPUID if not by what it is about.
"""

import contextlib
import time
from typing import Final

from trapline.arch import encode, paging
from trapline.arch.bits import M32
from trapline.arch.descriptors import (
    CODE_16,
    DATA_16,
    LONG_GATE_SIZE,
    flat,
)
from trapline.arch.error_codes import SELECTOR_IDT
from trapline.arch.events import Event, EventType
from trapline.arch.events import encode as encode_event
from trapline.arch.exits import ExitCode, exception_exit, set_intercept
from trapline.arch.registers import CR0, EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import IntCtl, load_segment
from trapline.errors import LaunchError
from trapline.machine.processor import Outcome

from . import layout
from .aside import enter_monitor
from .damage import Damage
from .facts import MANUAL, Facts
from .firmware_entry import CODE64
from .handshake import Handshake
from .layout import Command, SharedMemory
from .placement import place
from .process import QemuProcess
from .qmp import Qmp
from .resets import Resets
from .version import check_svm, check_version
from .watchdog import Watchdog

_TIMEOUT: Final = 20.0
"""Seconds: enough for a few instructions on the busiest machine."""
_CODE, _HANDLER, _IDT, _STACK, _NESTED = (layout.SCRATCH_AT + number * paging.PAGE for number in range(1, 6))
_CODE_SIZE: Final = 16
_VECTOR: Final = 0x30
_GATES: Final = _VECTOR + 1
_REAL_CODE: Final = 0x1000
"""A guest-physical page that is still zero."""
_ALWAYS: Final = (ExitCode.CPUID, ExitCode.SHUTDOWN, ExitCode.VMRUN)
_DB_EXIT: Final = exception_exit(Vector.DB)
_GP_EXIT: Final = exception_exit(Vector.GP)
_UD_EXIT: Final = exception_exit(Vector.UD)
_TS_EXIT: Final = exception_exit(Vector.TS)
_TSS: Final = 0x48

_CPUID: Final = b"\x0f\xa2"
_LOAD_FLAGS: Final = b"\x48\x8b\x44\x24\x10"
"""MOV RAX, [RSP + 16]: the RFLAGS of a frame without an error code."""
_NOP, _UD2, _INT_N, _HLT, _INT1 = b"\x90", b"\x0f\x0b", bytes((0xCD, _VECTOR)), b"\xf4", b"\xf1"


def probe(qemu: QemuProcess, accelerator: str) -> Facts:
    """Return what a QEMU does whose monitor is loaded; raises LaunchError where it does not start or get through.

    Of a CPU under KVM only that is asked in which those of hardware differ.
    """
    with contextlib.closing(_Prober(qemu)) as prober:
        version = prober.start()
        if accelerator == "kvm":
            return MANUAL._replace(
                version=version,
                faults_set_rf=_faults_set_rf(prober),
                interrupts_keep_rf=_interrupts_keep_rf(prober),
                nests_in_real_mode=_nests_in_real_mode(prober),
                saves_nrip=_saves_nrip(prober),
                ts_error_code=_ts_error_code(prober),
            )
        return Facts(
            version,
            faults_set_rf=_faults_set_rf(prober),
            interrupts_keep_rf=_interrupts_keep_rf(prober),
            loads_shadow=_loads_shadow(prober),
            plain_gate_codes=_plain_gate_codes(prober),
            nests_in_real_mode=_nests_in_real_mode(prober),
            wide_invalid=_wide_invalid(prober),
            knows_int1=_knows_int1(prober),
            hlt_asks=_hlt_asks(prober),
            saves_nrip=_saves_nrip(prober),
            ts_error_code=_ts_error_code(prober),
        )


class _Prober:
    """Enters guests, and tells how they left."""

    def __init__(self, qemu: QemuProcess) -> None:
        self._qemu = qemu
        self._shared = SharedMemory(qemu.monitor)
        self._qmp = Qmp(qemu.qmp)
        watchdog = Watchdog(qemu.command, self._shared.mailbox, self._qmp.run_state)
        damage = Damage(self._shared, isolated=False, q35=False)
        resets = Resets(None, damage)  # these guests are ours
        self._handshake = Handshake(qemu, self._shared, lambda: None, watchdog, damage, resets)
        self.control, self.save = self._shared.vmcb.control, self._shared.vmcb.save
        self.base = 0
        """The address of the shared memory."""
        self.code = _CODE
        """Where the code of the guest is; TCG would not notice that it is written over."""

    def start(self) -> tuple[int, int, int]:
        """Wait for the monitor; returns QEMU's version."""
        if self._handshake.wait(None) is Outcome.VMEXIT:
            place(self._shared, 0, self._qemu.command)  # these guests need no RAM
            self._handshake.expect_report()
            self._handshake.wait(None)
        if self._handshake.running:
            raise self._qemu.launch_error()
        self._handshake.report_came()
        self.base = self._shared.base
        check_svm(self._shared.mailbox.efer)
        self.put(_HANDLER, _LOAD_FLAGS + _CPUID)
        self.put(_IDT, encode.long_gate(CODE64, self.base + _HANDLER).to_bytes(LONG_GATE_SIZE, "little") * _GATES)
        version = self._qmp.version(_TIMEOUT)
        if version is None:
            raise LaunchError("QMP does not report QEMU's version")
        check_version(version)
        return version

    @property
    def memory(self) -> memoryview:
        """The shared memory."""
        return self._shared.memory

    def put(self, at: int, data: bytes) -> None:
        """Write into the shared memory."""
        self._shared.memory[at : at + len(data)] = data

    def enter(self, code: bytes, *intercepts: int) -> None:
        """Prepare 64-bit code, with a handler for every event that leaves by CPUID with the pushed RFLAGS in RAX."""
        control, save = self.control, self.save
        self.code += _CODE_SIZE
        self.put(self.code, code + _CPUID)
        enter_monitor(self._shared.vmcb, self._shared, self.base + self.code)
        for intercept in (*_ALWAYS, *intercepts):
            set_intercept(control, intercept)
        save.rsp = self.base + _STACK + paging.PAGE
        save.idtr.base, save.idtr.limit = self.base + _IDT, LONG_GATE_SIZE * _GATES - 1

    def leave(self) -> int:
        """Run the guest; returns its exit code."""
        self._handshake.give(Command.LOAD_AND_RESUME)
        outcome = self._handshake.wait(time.monotonic() + _TIMEOUT)
        if outcome is not Outcome.VMEXIT:
            reason = f"this QEMU cannot be probed: a guest does not leave ({outcome.value if outcome else outcome})"
            raise LaunchError(reason, command=self._qemu.command, returncode=None, output=self._qemu.errors())
        return self.control.exit_code

    def close(self) -> None:
        """Release what the machine itself does not."""
        self._qmp.close()
        self._handshake.close()


def _pushed_rf(prober: _Prober) -> bool:
    prober.leave()
    return bool(prober.save.rax & RFLAGS.RF)


def _faults_set_rf(prober: _Prober) -> bool:
    prober.enter(_UD2)
    return _pushed_rf(prober)


def _interrupts_keep_rf(prober: _Prober) -> bool:
    prober.enter(_NOP)
    prober.control.event_inj = encode_event(Event(_VECTOR, EventType.INTR))
    return not _pushed_rf(prober)


def _interrupt_in_shadow(prober: _Prober) -> None:
    """Let a virtual interrupt wait for the end of an interrupt shadow; it leaves when it is due."""
    set_intercept(prober.control, ExitCode.VINTR)
    prober.control.int_ctl = IntCtl.V_IRQ | IntCtl.V_IGN_TPR | _VECTOR << IntCtl.VECTOR_SHIFT
    prober.control.interrupt_shadow = 1
    prober.save.rflags |= RFLAGS.IF


def _loads_shadow(prober: _Prober) -> bool:
    prober.enter(_NOP)
    _interrupt_in_shadow(prober)
    prober.leave()
    return prober.save.rip > prober.base + prober.code


def _plain_gate_codes(prober: _Prober) -> bool:
    prober.enter(_INT_N, _GP_EXIT)
    prober.save.idtr.limit = 0
    prober.leave()
    return prober.control.exit_info_1 == _VECTOR * 8 | SELECTOR_IDT


def _nests_in_real_mode(prober: _Prober) -> bool:
    """Real mode executes a page that nested tables lead to our code; by itself it is zeros, an ADD.

    Its single step leaves where the nested tables are not walked.
    """
    prober.enter(b"", _DB_EXIT)
    rights = paging.P | paging.RW | paging.US
    tables = [_NESTED + level * paging.PAGE for level in range(4)]
    for table, target in zip(tables, [*tables[1:], _CODE], strict=True):
        index = paging.table_index(_REAL_CODE, 1) if target == _CODE else 0
        prober.put(table, encode.page_table({index: encode.page_entry(prober.base + target, rights)}))
    control, save = prober.control, prober.save
    control.np_control, control.ncr3 = 1, prober.base + _NESTED
    save.cr0, save.cr3, save.cr4, save.efer = CR0.ET, 0, 0, EFER.SVME
    save.rip, save.rsp, save.rflags = _REAL_CODE + prober.code - _CODE, 0, RFLAGS.ALWAYS_ONE | RFLAGS.TF
    load_segment(save.cs, flat(0, CODE_16))
    for segment in (save.ss, save.ds, save.es, save.fs, save.gs):
        load_segment(segment, flat(0, DATA_16))
    return prober.leave() == ExitCode.CPUID


def _wide_invalid(prober: _Prober) -> bool:
    prober.enter(_NOP)
    prober.control.asid = 0  # which VMRUN refuses (APM 15.5.1)
    return prober.leave() == ExitCode.INVALID


def _knows_int1(prober: _Prober) -> bool:
    prober.enter(_INT1, _UD_EXIT)
    return prober.leave() != _UD_EXIT


def _hlt_asks(prober: _Prober) -> bool:
    """HLT in an interrupt shadow, with an interrupt that ends it at once: the #DB comes first."""
    prober.enter(_HLT, _DB_EXIT)
    _interrupt_in_shadow(prober)
    prober.save.rflags |= RFLAGS.TF
    return prober.leave() != ExitCode.CPUID  # the handler's


def _saves_nrip(prober: _Prober) -> bool:
    prober.enter(b"")
    prober.leave()
    return prober.control.nrip == prober.save.rip + len(_CPUID)


def _ts_error_code(prober: _Prober) -> bool:
    """The stack of an interrupt is beyond the limit of the TSS: #TS with its selector (APM vol. 2, 8.9.4)."""
    prober.enter(_UD2, _TS_EXIT)
    gate = _IDT + LONG_GATE_SIZE * Vector.UD
    usual = bytes(prober.memory[gate : gate + LONG_GATE_SIZE])
    prober.put(gate, encode.long_gate(CODE64, prober.base + _HANDLER, ist=1).to_bytes(LONG_GATE_SIZE, "little"))
    prober.save.tr.selector = _TSS
    left = prober.leave() == _TS_EXIT
    prober.put(gate, usual)
    return left and prober.control.exit_info_1 & M32 == _TSS
