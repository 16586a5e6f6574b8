"""Unicorn behind a few calls: memory, ports, VMRUN, and a way to stop."""

import ctypes
import mmap
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import unicorn as uc
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import Uc, UcError, uc_tb, uclib

from trapline.arch import msr
from trapline.arch.msr import MSRPM_SIZE
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS
from trapline.arch.vmcb import Vmcb
from trapline.errors import ProcessorError

from .uc_context import CC_OP_EFLAGS, HF2_GIF, HF_GUEST, Context, word
from .unicorn_abi import check_size, check_version, stop_between_instructions

MONITOR: Final = 1 << 56
"""Where VMRUN finds the VMCB: physical, beyond what any page table entry of a guest can name."""
MSRPM: Final = MONITOR + 0x1000
"""Where it finds the permission map."""
_HSAVE: Final = MONITOR + 0x3000
_MONITOR_SIZE: Final = 0x4000
_ENTRY: Final = 1 << 51
"""VMLOAD, VMRUN; then CPUID, HLT: code, and so an address that paging keeps."""
_CODE: Final = b"\x0f\x01\xda\x0f\x01\xd8\xf4" + b"\x0f\xa2\xf4"
_CPUID: Final = _ENTRY + 7
_HIGH: Final = 1 << 32
_END: Final = 1 << 52
"""Of what page table entries can name."""

_CS: Final = 1
"""In the order of segment registers."""

STOPPED: Final = -1
"""Nobody raised anything: somebody called `stop`."""
SYSCALL: Final = -2
SYSENTER: Final = -3
PORT: Final = -4
"""A port access that must not happen. Here as at the calls, the context is as before the instruction."""
LOST: Final = -5
"""Unicorn gave up: `error` says why."""

_ALL_ONES: Final = (1 << 64) - 1

_WITHOUT_AVX: Final = {(0xD, 0): (0b011, _ALL_ONES, 0x240, _ALL_ONES), (0xD, 2): (0, 0, 0, 0)}
"""What Unicorn's CPUID shows of the areas of XSAVE but for the upper halves of YMM registers: it has no AVX."""

VMEXIT: Final = 0x100
"""Added to the exit code of what SVM intercepts; below are the vectors of what it does not."""

_held: Final = ctypes.PyDLL(uclib._name)  # noqa: SLF001
"""The same library: what is short is called without letting go of Python's lock."""
_emu_start: Final = uclib["uc_emu_start"]
"""Arguments are objects of ctypes everywhere: to make such of numbers takes as long as a call."""
_NEVER, _NO_COUNT = ctypes.c_uint64(), ctypes.c_size_t()
_REG_EFLAGS: Final = ctypes.c_int(x86.UC_X86_REG_EFLAGS)

_HFLAGS: Final = word("hflags")
_GIF: Final = HF2_GIF << 32
"""hflags2 is the upper half of that word."""


class Bus(Protocol):
    """What the guest reaches beside RAM."""

    def port_read(self, port: int, size: int) -> int | None:
        """Return what IN reads; None: the instruction must not happen."""

    def port_write(self, port: int, size: int, value: int) -> bool:
        """Do what OUT does; False: the instruction must not happen."""

    def mmio_read(self, gpa: int, size: int) -> int:
        """Return what a load reads."""

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Do what a store does."""

    def note_code(self, gpa: int, size: int) -> None:
        """Remember that bytes of one page were translated: a copy of them is what the CPU executes from now on."""


class Engine:
    """One Unicorn CPU in SVM guest mode."""

    def __init__(self, memory: int, bus: Bus) -> None:
        """Map `memory` bytes of RAM at 0, and the bus wherever RAM is not."""
        check_version()
        self._bus = bus
        self._uc = Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        self._uc.ctl_set_cpu_model(x86.UC_CPU_X86_EPYC)
        self._uc.ctl_exits_enabled(True)  # none: every address can be executed
        handle = self._uc._uch  # noqa: SLF001  # the raw calls need it
        assert handle is not None
        self._handle = handle
        self.ram = mmap.mmap(-1, memory)
        self._map(0, self.ram)
        self._monitor = mmap.mmap(-1, _MONITOR_SIZE)
        self._map(MONITOR, self._monitor)
        self.vmcb = Vmcb.from_buffer(self._monitor)
        """The VMCB that VMRUN executes, not the hypervisor's."""
        self.msrpm = memoryview(self._monitor)[MSRPM - MONITOR :][:MSRPM_SIZE]
        self._uc.mem_map(_ENTRY, 0x1000, uc.UC_PROT_READ | uc.UC_PROT_EXEC)
        self._uc.mem_write(_ENTRY, _CODE)
        self._refused = False
        self._saved = False
        """The context holds what counts already: what Unicorn does until it stops does not."""
        for start, end in ((memory, _HIGH), (_HIGH, _ENTRY), (_ENTRY + 0x1000, _END)):
            self._map_bus(start, end)

        self._allocated = ctypes.c_void_p()
        _check(uclib.uc_context_alloc(self._handle, ctypes.byref(self._allocated)))
        size = uclib.uc_context_size(self._handle)
        check_size(size)
        assert self._allocated.value is not None
        self.memory = (ctypes.c_char * size).from_address(self._allocated.value)
        """The bytes of the context: freed with the last view of them."""
        weakref.finalize(self.memory, uclib.uc_context_free, ctypes.c_void_p(self._allocated.value)).atexit = False
        self._words = memoryview(self.memory).cast("B").cast("Q")
        self.context = Context.from_buffer(self.memory)
        """The guest's state after `vmrun` and `resume`, and before `resume`."""
        stop_between_instructions(self._handle, size)
        self._prepare_host()
        self.event = STOPPED
        self.error = ""
        self._address, self._flags = ctypes.c_uint64(), ctypes.c_uint64()
        self._flags_at = ctypes.byref(self._flags)
        self._raised: BaseException | None = None
        self._add_hooks()

    def vmrun(self) -> int:
        """Execute VMLOAD and VMRUN on `vmcb`, with the registers of the context; return the event."""
        context, host = self.memory, self._host
        self.vmcb.control.tlb_control = 1
        while True:
            for part in self._host_parts:
                context[part] = host[part]
            self.context.gprs[0] = MONITOR
            self.context.old_exception = 0xFFFF_FFFF
            self.context.vm_hsave = _HSAVE
            event = self._start(_ENTRY)
            if event != STOPPED or self.context.hflags & HF_GUEST:
                return event  # otherwise somebody stopped us before VMRUN

    def resume(self) -> int:
        """Go on from the context, without a VMRUN; return the event."""
        return self._start(self.context.rip)

    def step(self) -> int:
        """Execute one instruction that ends a block, from the context; return the event.

        Slow: blocks are translated anew.
        """
        number = ctypes.c_size_t()
        rip = self.context.rip
        at = ctypes.c_uint64(self.context.segments[_CS].base + rip)
        hook = (uc.UC_HOOK_CODE, self._on_step, None, at, at)
        self.forget_code()
        _check(uclib.uc_hook_add(self._handle, ctypes.byref(number), *hook))
        try:
            return self._start(rip)
        finally:
            _check(uclib.uc_hook_del(self._handle, number))
            self.forget_code()

    def stop(self) -> None:
        """Make `vmrun` and `resume` come back; for other threads. Without effect while neither runs."""
        _held.uc_emu_stop(self._handle)

    def flush_tlb(self) -> None:
        """Forget translations of linear addresses."""
        self._uc.ctl(uc.UC_CTL_TLB_FLUSH, uc.UC_CTL_IO_WRITE)

    def eflags(self) -> int:
        """Compute RFLAGS as it was when the CPU stopped."""
        _held.uc_reg_read(self._handle, _REG_EFLAGS, self._flags_at)
        return self._flags.value

    def forget_code(self) -> None:
        """Forget translated code: for who wrote to RAM, which Unicorn does not notice."""
        self._uc.ctl(uc.UC_CTL_TB_FLUSH, uc.UC_CTL_IO_WRITE)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Execute CPUID outside the guest; return EAX, EBX, ECX and EDX. The context is kept."""
        kept = bytes(self.memory)
        for part in self._host_parts:
            self.memory[part] = self._host[part]
        gprs = self.context.gprs
        gprs[0], gprs[1] = leaf, subleaf
        self._start(_CPUID)
        eax, ecx, edx, ebx = (gprs[number] & 0xFFFF_FFFF for number in range(4))
        self.memory[:] = kept
        shown = _WITHOUT_AVX.get((leaf, subleaf), (_ALL_ONES,) * 4)
        return eax & shown[0], ebx & shown[1], ecx & shown[2], edx & shown[3]

    def _start(self, address: int) -> int:
        handle, allocated = self._handle, self._allocated
        self.event = STOPPED
        _held.uc_context_restore(handle, allocated)
        self._address.value = address
        error = _emu_start(handle, self._address, _NEVER, _NEVER, _NO_COUNT)
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if self.event < 0 and not self._saved:
            _held.uc_context_save(handle, allocated)
            if error:
                self.event, self.error = LOST, str(UcError(error))
        if self._refused:
            self.flush_tlb()  # of pages that are not the guest's
        self._refused = self._saved = False
        return self.event

    def _map(self, gpa: int, memory: mmap.mmap) -> None:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._uc.mem_map_ptr(gpa, len(memory), uc.UC_PROT_ALL, address)

    def _map_bus(self, start: int, end: int) -> None:
        bus = self._bus

        def read(_: Any, offset: int, size: int, __: Any) -> int:
            return _ALL_ONES >> 64 - 8 * size if self._refused else bus.mmio_read(start + offset, size)

        def write(_: Any, offset: int, size: int, value: int, __: Any) -> None:
            if not self._refused:
                bus.mmio_write(start + offset, size, value)

        self._uc.mmio_map(start, end - start, read, None, write, None)

    def _prepare_host(self) -> None:
        """Note the state in which VMRUN is executed: 64-bit code without paging.

        CR4.PAE must be set: the guest's CR0.PG would be lost without.
        """
        self._uc.reg_write(x86.UC_X86_REG_MSR, (msr.VM_HSAVE_PA, _HSAVE))
        self._uc.reg_write(x86.UC_X86_REG_MSR, (msr.EFER, EFER.SVME | EFER.LME | EFER.LMA))
        self._uc.reg_write(x86.UC_X86_REG_CR0, CR0.PE)
        self._uc.reg_write(x86.UC_X86_REG_CR4, CR4.PAE)
        _held.uc_context_save(self._handle, self._allocated)
        self._host = bytes(self.memory)
        self._host_parts = (
            slice(Context.eflags.offset, Context.ldtr.offset),  # type: ignore[attr-defined]
            slice(Context.cr0.offset, Context.a20_mask.offset),  # type: ignore[attr-defined]
            slice(Context.efer.offset, Context.efer.offset + 8),  # type: ignore[attr-defined]
        )

    def _add_hooks(self) -> None:
        self._on_event = _INTERRUPT(self._event_hook())  # kept: ctypes does not
        self._on_block = _TRANSLATED(self._note_block)
        self._on_step = _CODE_HOOK(lambda *_: _held.uc_emu_stop(self._handle))
        number = ctypes.c_size_t()
        _check(uclib.uc_hook_add(self._handle, ctypes.byref(number), uc.UC_HOOK_INTR, self._on_event, None, 1, 0))
        hook_block = (uc.UC_HOOK_EDGE_GENERATED, self._on_block, None, ctypes.c_uint64(1), ctypes.c_uint64(0))
        _check(uclib.uc_hook_add(self._handle, ctypes.byref(number), *hook_block))
        # SYSCALL first: when a stop is asked for already, its helper looks at one hook and no further.
        for instruction, hook in (
            (x86.UC_X86_INS_SYSCALL, partial(self._on_call, SYSCALL)),
            (x86.UC_X86_INS_SYSENTER, partial(self._on_call, SYSENTER)),
            (x86.UC_X86_INS_IN, self._on_in),
            (x86.UC_X86_INS_OUT, self._on_out),
        ):
            self._uc.hook_add(uc.UC_HOOK_INSN, self._guarded(hook), None, 1, 0, instruction)

    def _event_hook(self) -> Callable[[Any, int, Any], None]:
        """Return what is called for each exception and each intercept: the hot one."""
        handle, allocated = self._handle, self._allocated
        save, restore, stop = _held.uc_context_save, _held.uc_context_restore, _held.uc_emu_stop
        words = self._words

        def on_event(_: Any, number: int, __: Any) -> None:
            try:
                if not self._saved:
                    self.event = number
                    save(handle, allocated)
                    if words[_HFLAGS] & _GIF:
                        # Unicorn looks for interrupts before it stops, and would find this one again for ever.
                        words[_HFLAGS] &= ~_GIF
                        restore(handle, allocated)
                stop(handle)
            except BaseException as error:  # noqa: BLE001  # Ctrl-C: a callback cannot raise, `_start` does
                self._raised = error
                stop(handle)

        return on_event

    def _note_block(self, _: Any, block: Any, *__: Any) -> None:
        """A block was translated; it may reach into a second page."""
        pc, size = block[0].pc, block[0].size
        gpa = ctypes.c_uint64()
        while size > 0:
            here = min(size, 0x1000 - (pc & 0xFFF))
            if uclib.uc_vmem_translate(self._handle, ctypes.c_uint64(pc), uc.UC_PROT_EXEC, ctypes.byref(gpa)) == 0:
                self._bus.note_code(gpa.value, here)
            pc, size = pc + here, size - here

    def _guarded(self, hook: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            try:
                return hook(*arguments)
            except BaseException as error:  # noqa: BLE001  # as above
                self._raised = error
                _held.uc_emu_stop(self._handle)
                return 0

        return call

    def _on_in(self, _: Any, port: int, size: int, __: Any) -> int:
        if self._refused:
            return 0
        value = self._bus.port_read(port, size)
        if value is None:
            self._refuse()
            return 0
        return value

    def _on_out(self, _: Any, port: int, size: int, value: int, __: Any) -> int:
        if not self._refused and not self._bus.port_write(port, size, value):
            self._refuse()
        return 0

    def _on_call(self, event: int, *_: Any) -> int:
        self.save()
        self._close_window()
        self._saved, self.event = True, event
        _held.uc_emu_stop(self._handle)
        return 0

    def save(self) -> None:
        """Copy the CPU's state into the context; for the bus, in the middle of an instruction."""
        _held.uc_context_save(self._handle, self._allocated)

    def _close_window(self) -> None:
        """Let Unicorn find no interrupt before it stops: it would find it for ever. For what was just saved."""
        words = self._words
        if words[_HFLAGS] & _GIF:
            words[_HFLAGS] &= ~_GIF
            _held.uc_context_restore(self._handle, self._allocated)

    def _refuse(self) -> None:
        """Leave the guest before a port access.

        Unicorn ends a block of instructions before it stops. What comes after this one must change no memory,
        and so no page is mapped any more; the context is already saved, and wins.
        """
        self.save()
        # Status flags cannot be computed later: what comes after this instruction changes them.
        self.context.cc_op, self.context.cc_src = CC_OP_EFLAGS, self.eflags() & RFLAGS.STATUS
        self._close_window()
        self._refused = self._saved = True
        self.event = PORT
        self._uc.reg_write(x86.UC_X86_REG_CR3, 0xFFFF_F000)
        self._uc.reg_write(x86.UC_X86_REG_CR0, CR0.PE | CR0.PG)
        _held.uc_emu_stop(self._handle)


def _check(status: int) -> None:
    if status:
        raise ProcessorError(f"unicorn: {UcError(status)}")


_INTERRUPT: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
_TRANSLATED: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(uc_tb), ctypes.POINTER(uc_tb), ctypes.c_void_p
)
_CODE_HOOK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
