"""Instructions that stop Unicorn: what it cannot do itself, and what the hypervisor intercepts (APM 15.9-15.12)."""

from collections.abc import Callable
from typing import Final

from trapline.arch import msr
from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode, is_intercepted
from trapline.arch.registers import CR0, CR4, DR7, EFER, Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.asm.decoder import Decoded, Mnemonic, decode_at_rip
from trapline.devices.machine import BareMachine
from trapline.machine.linear import code_bits

from .cpu import Cpu
from .memory import Ram
from .uc_context import Context

_LOW: Final = 0xFFFF_FFFF
_ENABLE: Final = 0xFF
"""L0 to G3 of DR7."""
_RAX: Final = 0
_RSP: Final = 4
_SOFTWARE: Final[dict[int, Vector]] = {Mnemonic.INT3: Vector.BP, Mnemonic.INTO: Vector.OF}


class Instructions:
    """Answers an exit at an instruction. True: the guest goes on; False: a #VMEXIT; None: Unicorn is to execute it."""

    def __init__(self, vmcb: Vmcb, gprs: Gprs, memory: Ram, machine: BareMachine, context: Context, cpu: Cpu) -> None:
        self._vmcb, self._gprs, self._memory = vmcb, gprs, memory
        self._machine, self._context, self._cpu = machine, context, cpu
        self._own: dict[int, Callable[[Decoded], bool | None]] = {
            ExitCode.HLT: self._hlt,
            ExitCode.SWINT: self._software_interrupt,
            ExitCode.ICEBP: self._icebp,
            ExitCode.MSR: self._msr,
            ExitCode.READ_CR8: self._read_cr8,
            ExitCode.WRITE_CR8: self._write_cr8,
            ExitCode.WRITE_CR0: self._write_cr0,
            ExitCode.WRITE_DR7: self._write_dr7,
            ExitCode.IRET: self._iret,
        }

    def answer(self, code: int) -> bool | None:
        """Do what the instruction at RIP does, or exit for it."""
        decoded = decode_at_rip(self._vmcb.save, self._memory)
        own = self._own.get(code)
        if own is not None:
            return own(decoded)
        return self._cpu.exit_at_instruction(code, decoded.length, self._context.error_code)

    def _hlt(self, decoded: Decoded) -> bool:
        if is_intercepted(self._vmcb.control, ExitCode.HLT):
            return self._cpu.exit_at_instruction(ExitCode.HLT, decoded.length)
        self._cpu.halted = True
        return self._cpu.skip(decoded.length)

    def _software_interrupt(self, decoded: Decoded) -> bool:
        """INT3, INTO and INT n: Unicorn does not tell them apart."""
        vector = _SOFTWARE.get(decoded.mnemonic)
        if vector is not None:
            return self._cpu.raise_software(vector, decoded.length)
        if decoded.mnemonic == Mnemonic.INVALID:  # a LOCK prefix, which Unicorn does not mind
            return self._cpu.raise_exception(Vector.UD)
        if is_intercepted(self._vmcb.control, ExitCode.SWINT):
            return self._cpu.exit_at_instruction(ExitCode.SWINT, decoded.length, decoded.immediate)
        behind = self._vmcb.save.rip + decoded.length
        return self._cpu.deliver(Event(decoded.immediate, EventType.SOFT), behind)

    def _icebp(self, decoded: Decoded) -> bool:
        """F1: a #DB that the intercept of #DB does not see (APM 15.12.2)."""
        if is_intercepted(self._vmcb.control, ExitCode.ICEBP):
            return self._cpu.exit_at_instruction(ExitCode.ICEBP, decoded.length)
        self._vmcb.save.rip += decoded.length
        return self._cpu.deliver(Event(Vector.DB, EventType.EXCEPTION), None)

    def _msr(self, decoded: Decoded) -> bool:
        """RDMSR or WRMSR; the base of the local APIC is the machine's."""
        save, gprs = self._vmcb.save, self._gprs
        writes = self._context.error_code
        if gprs.rcx & _LOW != msr.APIC_BASE:
            return self._cpu.exit_at_instruction(ExitCode.MSR, decoded.length, writes)
        if not writes:
            save.rax, gprs.rdx = self._machine.apic_base & _LOW, self._machine.apic_base >> 32
        return self._cpu.skip(decoded.length)

    def _read_cr8(self, decoded: Decoded) -> bool:
        """MOV from CR8, the priority of the local APIC (APM 3.1.5)."""
        if is_intercepted(self._vmcb.control, ExitCode.READ_CR8):
            return self._cpu.exit_at_instruction(ExitCode.READ_CR8, decoded.length)
        value, number = self._machine.tpr >> 4, decoded.register
        if number == _RAX:
            self._vmcb.save.rax = value
        elif number == _RSP:
            self._vmcb.save.rsp = value
        else:
            self._context.gprs[number] = value
        return self._cpu.skip(decoded.length)

    def _write_cr8(self, decoded: Decoded) -> bool:
        """MOV to CR8."""
        if is_intercepted(self._vmcb.control, ExitCode.WRITE_CR8):
            return self._cpu.exit_at_instruction(ExitCode.WRITE_CR8, decoded.length)
        value = self._context.gprs[decoded.register]
        if value >> 4:
            return self._cpu.raise_exception(Vector.GP)
        self._machine.tpr = value << 4
        return self._cpu.skip(decoded.length)

    def _write_cr0(self, decoded: Decoded) -> bool | None:
        """MOV to CR0: Unicorn refuses no value (APM 3.1.1, 14.6.1). LMSW and CLTS cannot write one to refuse."""
        save = self._vmcb.save
        if is_intercepted(self._vmcb.control, ExitCode.WRITE_CR0):
            return self._cpu.exit_at_instruction(ExitCode.WRITE_CR0, decoded.length)
        if decoded.mnemonic != Mnemonic.MOV:
            return None
        value, long = self._context.gprs[decoded.register], code_bits(self._vmcb.save) == 64
        pages = bool(value & CR0.PG)
        refused = (
            (long and (value >> 32 or not pages))
            or (pages and not value & CR0.PE)
            or value & (CR0.NW | CR0.CD) == CR0.NW
            or (pages and not save.cr0 & CR0.PG and save.efer & EFER.LME and not save.cr4 & CR4.PAE)
        )
        return self._cpu.raise_exception(Vector.GP) if refused else None

    def _write_dr7(self, decoded: Decoded) -> bool | None:
        """MOV to DR7, whose upper half Unicorn does not look at (APM 13.1.1.4)."""
        if is_intercepted(self._vmcb.control, ExitCode.WRITE_DR7):
            return self._cpu.exit_at_instruction(ExitCode.WRITE_DR7, decoded.length)
        save, value = self._vmcb.save, self._context.gprs[decoded.register]
        if code_bits(self._vmcb.save) == 64 and value >> 32:
            return self._cpu.raise_exception(Vector.GP)
        if (value | save.dr7) & _ENABLE:
            return None  # breakpoints come or go
        save.dr7 = value & _LOW | DR7.FIXED
        return self._cpu.skip(decoded.length)

    def _iret(self, decoded: Decoded) -> bool | None:
        """IRET, behind which an NMI that waits is no longer blocked (APM 8.2.3)."""
        if is_intercepted(self._vmcb.control, ExitCode.IRET):
            return self._cpu.exit_at_instruction(ExitCode.IRET, decoded.length)
        return None
