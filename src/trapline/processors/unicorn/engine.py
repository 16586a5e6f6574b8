"""One Unicorn CPU in SVM guest mode: VMRUN, resume, and single instructions outside the guest."""

import mmap
from collections.abc import Iterable
from typing import Any, Final

from unicorn import x86_const as x86

from trapline.arch import fxsave, msr
from trapline.arch.bits import M64
from trapline.arch.cpuid import XSAVE_AREAS
from trapline.arch.msr import MSRPM_SIZE
from trapline.arch.paging import PAGE
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vmcb import Vmcb
from trapline.errors import UsageError

from .address_map import Range
from .binding import Binding
from .hooks import Hooks
from .stops import Stop
from .uc_context import CS, FPU, HF2_NMI, HF_GUEST, HF_IOBPT, Context

MONITOR: Final = 1 << 56
"""Where VMRUN finds the VMCB: physical, beyond what any page table entry of a guest can name."""
MSRPM: Final = MONITOR + PAGE
"""Where it finds the permission map."""
_HSAVE: Final = MSRPM + MSRPM_SIZE
_MONITOR_SIZE: Final = _HSAVE + PAGE - MONITOR
ENTRY: Final = 1 << 51
"""VMLOAD, VMRUN; CPUID; FXSAVE [RAX]; FXRSTOR [RAX]; a HLT after each: code, and so an address that paging keeps."""
_CODE: Final = b"\x0f\x01\xda\x0f\x01\xd8\xf4" + b"\x0f\xa2\xf4" + b"\x0f\xae\x00\xf4" + b"\x0f\xae\x08\xf4"
_CPUID: Final = ENTRY + 7
_FXSAVE: Final = ENTRY + 10
_FXRSTOR: Final = ENTRY + 14
_FPU: Final = ENTRY + PAGE
"""Where FXSAVE and FXRSTOR find their image."""
_HIGH: Final = 1 << 32
_END: Final = 1 << 52
"""Of what page table entries can name."""

_NO_EXCEPTION: Final = 0xFFFF_FFFF

_WITHOUT_AVX: Final = {
    (XSAVE_AREAS, 0): (0b011, M64, 0x240, M64),
    (XSAVE_AREAS, 2): (0, 0, 0, 0),
}
"""What Unicorn's CPUID shows of the areas of XSAVE but for the upper halves of YMM registers: it has no AVX."""


def is_aside(address: int) -> bool:
    """Return whether code at an address is the host's, and does not lead to the guest."""
    return ENTRY < address < ENTRY + PAGE


class Engine:
    """Runs the guest from the context of a binding. `vmrun`, `resume` and `step` return the event of `Hooks`."""

    def __init__(self, binding: Binding, hooks: Hooks, ram_size: int, holes: Iterable[Range] = ()) -> None:
        """Map the VMCB, the host's code and, wherever neither they nor RAM is, the bus.

        RAM has `ram_size` bytes, but for `holes`.
        """
        self._binding, self._hooks = binding, hooks
        self.resume = hooks.resume
        """Resume from the context, without a VMRUN."""
        self._monitor = mmap.mmap(-1, _MONITOR_SIZE)
        binding.map_memory(MONITOR, self._monitor)
        self.vmcb = Vmcb.from_buffer(self._monitor)
        """The VMCB that VMRUN executes, not the hypervisor's."""
        self.msrpm = memoryview(self._monitor)[MSRPM - MONITOR :][:MSRPM_SIZE]
        binding.map_code(ENTRY, _CODE)
        for start, end in (*holes, (ram_size, _HIGH), (_HIGH, ENTRY), (_FPU + PAGE, _END)):
            hooks.map_bus(start, end)
        self._fpu = mmap.mmap(-1, PAGE)
        binding.map_memory(_FPU, self._fpu)
        self._host = self._host_context()
        self._host_parts = (
            slice(Context.eflags.offset, Context.ldtr.offset),  # type: ignore[attr-defined]
            slice(Context.cr0.offset, Context.a20_mask.offset),  # type: ignore[attr-defined]
            slice(Context.efer.offset, Context.efer.offset + 8),  # type: ignore[attr-defined]
        )

    def vmrun(self) -> int:
        """Execute VMLOAD and VMRUN on `vmcb`, with the registers of the context."""
        context = self._binding.context
        self.vmcb.control.tlb_control = 1
        while True:
            self._load_host()
            context.gprs[0] = MONITOR
            context.old_exception = _NO_EXCEPTION
            context.vm_hsave = _HSAVE
            event = self._hooks.run(ENTRY)
            if event != Stop.ASKED or context.hflags & HF_GUEST:
                return event  # otherwise the stop came before VMRUN

    def step(self) -> int:
        """Execute one instruction that ends a block, from the context.

        Slow unless instructions are traced: blocks are translated anew.
        """
        binding, context = self._binding, self._binding.context
        if binding.traced:
            binding.set_limit(1)
            try:
                return self.resume()
            finally:
                binding.set_limit(None)

        def stop(*_: Any) -> None:
            binding.stop()

        binding.forget_code()
        hook = binding.hook_address(context.segments[CS].base + context.rip, stop)
        try:
            return self.resume()
        finally:
            binding.unhook(hook)
            binding.forget_code()

    def trace(self, enabled: bool) -> None:
        """Let the guest stop between any two instructions, not only two blocks of them. Slow."""
        self._binding.trace(enabled)
        if enabled:
            self.cpuid(0, 0)
            self._binding.find_limit()

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Execute CPUID outside the guest; return EAX, EBX, ECX and EDX. The context is kept."""
        context_bytes, gprs = self._binding.context_bytes, self._binding.context.gprs
        kept = bytes(context_bytes)
        self._load_host()
        gprs[0], gprs[1] = leaf, subleaf
        self._hooks.run(_CPUID)
        eax, ecx, edx, ebx = (gprs[number] & 0xFFFF_FFFF for number in range(4))
        context_bytes[:] = kept
        shown = _WITHOUT_AVX.get((leaf, subleaf), (M64,) * 4)
        return eax & shown[0], ebx & shown[1], ecx & shown[2], edx & shown[3]

    def read_fpu(self) -> bytes:
        """See `machine.Processor.read_fpu`. The context is kept."""
        kept = bytes(self._binding.context_bytes)
        self._execute_on_fpu(_FXSAVE)
        self._binding.context_bytes[:] = kept
        return self._fpu[: fxsave.SIZE]

    def write_fpu(self, image: bytes) -> None:
        """See `machine.Processor.write_fpu`. The rest of the context is kept."""
        if reserved := fxsave.refused(image):
            raise UsageError(f"MXCSR has no bits {reserved:#x}")
        context_bytes = self._binding.context_bytes
        kept = bytes(context_bytes)
        self._fpu[: fxsave.SIZE] = image
        self._execute_on_fpu(_FXRSTOR)
        loaded = context_bytes[FPU]
        context_bytes[:] = kept
        context_bytes[FPU] = loaded

    def _execute_on_fpu(self, address: int) -> None:
        """Execute FXSAVE or FXRSTOR outside the guest, for the XMM registers with CR4.OSFXSR."""
        context = self._binding.context
        context.rip = address
        while context.rip == address:  # otherwise a stop came before the instruction
            self._load_host()
            context.cr4 |= CR4.OSFXSR
            context.gprs[0] = _FPU
            self._hooks.run(address)
        self._binding.flush_tlb()  # of the image, which is at a linear address for that long

    def _load_host(self) -> None:
        """Make the context that of the host, but for what VMRUN loads of the guest's anyway."""
        context_bytes, context, host = self._binding.context_bytes, self._binding.context, self._host
        # VMRUN does not load these.
        nmi_blocked, io_breakpoints = context.hflags2 & HF2_NMI, context.hflags & HF_IOBPT
        for part in self._host_parts:
            context_bytes[part] = host[part]
        context.hflags2 |= nmi_blocked
        context.hflags |= io_breakpoints

    def _host_context(self) -> bytes:
        """Return the state in which VMRUN is executed: 64-bit code without paging.

        CR4.PAE must be set: the guest's CR0.PG would be lost without.
        """
        binding = self._binding
        binding.write_register(x86.UC_X86_REG_MSR, (msr.VM_HSAVE_PA, _HSAVE))
        binding.write_register(x86.UC_X86_REG_MSR, (msr.EFER, EFER.SVME | EFER.LME | EFER.LMA))
        binding.write_register(x86.UC_X86_REG_CR0, CR0.PE)
        binding.write_register(x86.UC_X86_REG_CR4, CR4.PAE)
        binding.save()
        return bytes(binding.context_bytes)
