"""Instructions that stop Unicorn: what it cannot do itself, and what the hypervisor intercepts (APM 15.9-15.12)."""

from collections.abc import Callable
from typing import Final

from trapline.arch import msr
from trapline.arch.bits import M32
from trapline.arch.control_registers import Cpuid, refuses_cr0, refuses_cr3, refuses_cr4, supported_cr4, write_cr0
from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode, is_intercepted
from trapline.arch.registers import DR7, Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.asm.decoder import Decoded, Mnemonic, decode_at_rip
from trapline.devices.local import LocalInterrupts
from trapline.machine.linear import code_bits, next_rip

from .clock import Clock
from .cpu import Cpu
from .memory import Ram
from .pending import Pending
from .stops import Next
from .uc_context import Context

_RAX: Final = 0
_RSP: Final = 4
_SOFTWARE: Final[dict[int, Vector]] = {Mnemonic.INT3: Vector.BP, Mnemonic.INTO: Vector.OF}


class Instructions:
    """Answers an intercept of an instruction: executes it, or lets Unicorn do so, or leaves with a #VMEXIT."""

    def __init__(
        self,
        vmcb: Vmcb,
        gprs: Gprs,
        memory: Ram,
        pins: LocalInterrupts,
        context: Context,
        cpu: Cpu,
        pending: Pending,
        flush_tlb: Callable[[], None],
        cpuid: Cpuid,
        clock: Clock,
        read_msr: Callable[[int], int],
    ) -> None:
        self._control, self._save = vmcb.control, vmcb.save
        self._gprs, self._memory, self._pins = gprs, memory, pins
        self._context, self._cpu, self._pending = context, cpu, pending
        self._flush_tlb, self._cpuid = flush_tlb, cpuid
        self._clock, self._read_msr = clock, read_msr
        self._cr4 = 0
        """The bits of CR4 that the CPU has; calculated when they are first needed."""
        self._own: dict[int, Callable[[Decoded], Next]] = {
            ExitCode.HLT: self._hlt,
            ExitCode.PAUSE: self._pause,
            ExitCode.RDTSC: self._read_time,
            ExitCode.READ_CR8: self._read_cr8,
            ExitCode.WRITE_CR8: self._write_cr8,
            ExitCode.WRITE_CR0: self._write_cr0,
            ExitCode.WRITE_CR3: self._write_cr3,
            ExitCode.WRITE_CR4: self._write_cr4,
            ExitCode.WRITE_DR7: self._write_dr7,
            ExitCode.IRET: self._execute,
        }
        """What the hypervisor does not intercept."""

    def answer(self, code: int) -> Next:
        """Answer the intercept of the instruction at RIP, by its exit code."""
        decoded = decode_at_rip(self._save, self._memory)
        if code == ExitCode.SWINT:
            return self._software_interrupt(decoded)
        if code == ExitCode.MSR:
            return self._msr(decoded)
        own = self._own.get(code)
        if own is None:
            return self._cpu.exit_at_instruction(code, decoded.length, self._context.error_code)
        if is_intercepted(self._control, code):
            return self._cpu.exit_at_instruction(code, decoded.length)
        return own(decoded)

    def _hlt(self, decoded: Decoded) -> Next:
        self._cpu.halt(next_rip(self._save, decoded.length))
        return self._cpu.skip(decoded.length)

    def _pause(self, decoded: Decoded) -> Next:
        """PAUSE of one of several CPUs: it waits for another one."""
        self._pending.give_up_turn()
        return self._cpu.skip(decoded.length)

    def _read_time(self, decoded: Decoded) -> Next:
        """RDTSC and RDTSCP, where time goes by instructions."""
        time = self._clock.now()
        self._save.rax, self._gprs.rdx = time & M32, time >> 32
        if decoded.mnemonic == Mnemonic.RDTSCP:
            self._gprs.rcx = self._read_msr(msr.TSC_AUX) & M32
        return self._cpu.skip(decoded.length)

    def _software_interrupt(self, decoded: Decoded) -> Next:
        """INT3, INTO and INT n: Unicorn does not tell them apart."""
        vector = _SOFTWARE.get(decoded.mnemonic)
        if vector is not None:
            return self._cpu.raise_software(vector, decoded.length)
        if decoded.mnemonic == Mnemonic.INVALID:  # a LOCK prefix, which Unicorn does not mind
            return self._cpu.raise_exception(Vector.UD)
        if is_intercepted(self._control, ExitCode.SWINT):
            return self._cpu.exit_at_instruction(ExitCode.SWINT, decoded.length, decoded.immediate)
        return self._cpu.deliver(Event(decoded.immediate, EventType.SOFT), next_rip(self._save, decoded.length))

    def _msr(self, decoded: Decoded) -> Next:
        """RDMSR or WRMSR; the base of the local APIC is the machine's."""
        save, gprs = self._save, self._gprs
        writes = self._context.error_code
        if gprs.rcx & M32 != msr.APIC_BASE:
            return self._cpu.exit_at_instruction(ExitCode.MSR, decoded.length, writes)
        if not writes:
            save.rax, gprs.rdx = self._pins.apic_base & M32, self._pins.apic_base >> 32
        return self._cpu.skip(decoded.length)

    def _read_cr8(self, decoded: Decoded) -> Next:
        """MOV from CR8, the priority of the local APIC (APM 3.1.5)."""
        value, number = self._pins.tpr >> 4, decoded.register
        if number == _RAX:
            self._save.rax = value
        elif number == _RSP:
            self._save.rsp = value
        else:
            self._context.gprs[number] = value
        return self._cpu.skip(decoded.length)

    def _write_cr8(self, decoded: Decoded) -> Next:
        """MOV to CR8."""
        value = self._context.gprs[decoded.register]
        if value >> 4:
            return self._cpu.raise_exception(Vector.GP)
        self._pins.tpr = value << 4
        return self._cpu.skip(decoded.length)

    def _write_cr0(self, decoded: Decoded) -> Next:
        """MOV to CR0, of which Unicorn takes any value. LMSW and CLTS cannot write one to refuse.

        Here and below: what cannot be read any more, because the guest has unmapped it, is left to Unicorn.
        """
        if decoded.mnemonic != Mnemonic.MOV:
            return Next.EXECUTE
        value = self._operand(decoded)
        if refuses_cr0(self._save, value, wide=code_bits(self._save) == 64):
            return self._cpu.raise_exception(Vector.GP)
        write_cr0(self._save, value)
        return self._cpu.skip(decoded.length)

    def _write_cr3(self, decoded: Decoded) -> Next:
        """MOV to CR3, of which Unicorn takes any value."""
        if decoded.mnemonic != Mnemonic.MOV:
            return Next.EXECUTE
        value = self._operand(decoded)
        if refuses_cr3(self._save, value, self._cpu.physical_bits):
            return self._cpu.raise_exception(Vector.GP)
        if value == self._save.cr3:
            self._flush_tlb()
        self._save.cr3 = value
        return self._cpu.skip(decoded.length)

    def _write_cr4(self, decoded: Decoded) -> Next:
        """MOV to CR4, of which Unicorn ignores what it does not know."""
        if decoded.mnemonic != Mnemonic.MOV:
            return Next.EXECUTE
        value = self._operand(decoded)
        self._cr4 = self._cr4 or supported_cr4(self._cpuid)
        if refuses_cr4(self._save, value, self._cr4):
            return self._cpu.raise_exception(Vector.GP)
        self._save.cr4 = value
        return self._cpu.skip(decoded.length)

    def _operand(self, decoded: Decoded) -> int:
        """Return the general register of MOV to a control or debug register."""
        value: int = self._context.gprs[decoded.register]
        return value if code_bits(self._save) == 64 else value & M32

    def _write_dr7(self, decoded: Decoded) -> Next:
        """MOV to DR7, whose upper half Unicorn does not check (APM 13.1.1.4)."""
        save, value = self._save, self._context.gprs[decoded.register]
        if code_bits(save) == 64 and value >> 32:
            return self._cpu.raise_exception(Vector.GP)
        if (value | save.dr7) & DR7.ENABLES:
            return Next.EXECUTE  # breakpoints come or go
        save.dr7 = value & M32 | DR7.FIXED
        return self._cpu.skip(decoded.length)

    def _execute(self, decoded: Decoded) -> Next:
        """IRET, after which an NMI is not blocked (APM 8.2.3)."""
        return Next.EXECUTE
