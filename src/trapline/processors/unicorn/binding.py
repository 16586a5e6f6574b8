"""Unicorn's C functions, bound to one CPU: how they are called, and nothing about what for."""

import ctypes
import mmap
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

import unicorn as uc
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import Uc, UcError, uc_tb, uclib

from trapline.arch.paging import PAGE
from trapline.errors import ProcessorError

from .uc_context import CC_OP_EFLAGS, CS, Context
from .unicorn_abi import check_size, check_version, find_emu_count, find_emu_counter, find_no_exit_request

OnEvent: TypeAlias = Callable[[Any, int, Any], None]
OnBlock: TypeAlias = Callable[[Any, Any, Any, Any], None]
OnCode: TypeAlias = Callable[[Any, int, int, Any], None]
OnAccess: TypeAlias = Callable[[object, int, int, int, int, object], None]
MmioRead: TypeAlias = Callable[[Any, int, int, Any], int]
MmioWrite: TypeAlias = Callable[[Any, int, int, int, Any], None]

NO_CODE_ERRORS: Final = frozenset((uc.UC_ERR_FETCH_UNMAPPED, uc.UC_ERR_FETCH_PROT))
"""What `run` returns when an instruction is fetched from where no memory is."""

_abandoned: Final[list[Uc]] = []
"""What must not be freed."""
_held: Final = ctypes.PyDLL(uclib._name)  # noqa: SLF001
"""The same library: what is short is called without letting go of Python's lock."""
_emu_start: Final = uclib["uc_emu_start"]
"""Arguments are objects of ctypes everywhere: to make such of numbers takes as long as a call."""
_NEVER, _NO_COUNT = ctypes.c_uint64(), ctypes.c_size_t()
_TRACED: Final = 0x5EED_0000_0000_0000
"""A limit of instructions that is never reached, and that cannot be mistaken for another number."""
_REG_EFLAGS: Final = ctypes.c_int(x86.UC_X86_REG_EFLAGS)
_EVERYWHERE: Final = ctypes.c_uint64(1), ctypes.c_uint64(0)
"""Begin and end of a hook that is for every address."""


class Binding:
    """One Unicorn CPU, with SVM."""

    def __init__(self) -> None:
        check_version()
        self._uc = Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        self._uc.ctl_set_cpu_model(x86.UC_CPU_X86_EPYC)
        self._uc.ctl_exits_enabled(True)  # none: every address can be executed
        handle = self._uc._uch  # noqa: SLF001  # the raw calls need it
        assert handle is not None
        self._handle = handle
        vars(self._uc)["_Uc__finalizer"].detach()  # it would free the CPU at exit, whatever it is at
        self._free = weakref.finalize(self, Uc.release_handle, handle)
        self._free.atexit = False
        self._callbacks: dict[int, object] = {}
        """By the number of the hook: ctypes does not keep them."""
        self._allocated = ctypes.c_void_p()
        _check(uclib.uc_context_alloc(handle, ctypes.byref(self._allocated)))
        size = uclib.uc_context_size(handle)
        check_size(size)
        assert self._allocated.value is not None
        self.context_bytes = (ctypes.c_char * size).from_address(self._allocated.value)
        """The context: freed with the last view of it."""
        free = weakref.finalize(self.context_bytes, uclib.uc_context_free, ctypes.c_void_p(self._allocated.value))
        free.atexit = False
        self.words = memoryview(self.context_bytes).cast("B").cast("Q")
        """The same in units of eight bytes."""
        self.context = Context.from_buffer(self.context_bytes)
        """The CPU's state after `save`, and before `run`."""
        self._no_exit_request = find_no_exit_request(handle, size)
        self._no_exit_request.value = 1
        self._count = _NO_COUNT
        self._hooked: dict[int, int] = {}
        """Linear addresses of code hooks, by the number of the hook."""
        self._hooked_addresses: frozenset[int] = frozenset()
        self.hooks_code = False
        """Whether some instruction has a hook."""
        self._limit: ctypes.c_size_t | None = None
        """Of instructions, where Unicorn keeps it; None: instructions are not traced."""
        self._address, self._register = ctypes.c_uint64(), ctypes.c_uint64()
        self._register_at = ctypes.byref(self._register)
        self.save: Callable[[], int] = partial(_held.uc_context_save, handle, self._allocated)
        """Copy the CPU's state into the context. Also in the middle of an instruction, for a callback."""
        self.restore: Callable[[], int] = partial(_held.uc_context_restore, handle, self._allocated)
        """Copy the context into the CPU."""
        self.stop: Callable[[], int] = partial(_held.uc_emu_stop, handle)
        """Make `run` return where it may: for callbacks after which the CPU's state does not count."""

    def run(self, address: int) -> int:
        """Restore the context and execute until a stop; returns Unicorn's error, 0: none."""
        self.restore()
        self._address.value = address
        error: int = _emu_start(self._handle, self._address, _NEVER, _NEVER, self._count)
        return error

    def stop_between_instructions(self) -> None:
        """Make `run` return after the block of instructions, or after the instruction if they are traced.

        From any thread; without effect while it does not run.
        """
        limit = self._limit
        if limit is None:
            self.stop()
        else:
            limit.value = 0

    @property
    def traced(self) -> bool:
        """Whether `run` can return between any two instructions."""
        return self._count is not _NO_COUNT

    def trace(self, enabled: bool) -> None:
        """Make `run` able to return between any two instructions, not only two blocks of them; three times as slow.

        When it is switched on, something must `run` before `find_limit`.
        """
        self._count = ctypes.c_size_t(_TRACED) if enabled else _NO_COUNT
        self._no_exit_request.value = not enabled
        self._limit = None
        self._note_hooks()
        self.forget_code()

    def is_hooked(self) -> bool:
        """Return whether there is a hook on the instruction that the context is at."""
        context = self.context
        return self.traced or context.segments[CS].base + context.rip in self._hooked_addresses

    def keep_flags(self) -> None:
        """Keep the status flags of a hooked instruction that calls back; the context is saved. See `hook_flags`."""
        if self.is_hooked():
            self.context.cc_op = CC_OP_EFLAGS
            self.restore()

    def set_limit(self, count: int | None) -> None:
        """Let `run` return after so many traced instructions; None: without a limit."""
        self._count.value = _TRACED if count is None else count

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self._count.value != _TRACED

    def find_limit(self) -> None:
        """Find, after a traced `run`, what makes the next ones return."""
        self._limit = find_emu_count(self._handle, _TRACED)

    def counter(self) -> ctypes.c_uint64:
        """Return where Unicorn counts traced instructions, after `find_limit`: those since `run` was called last."""
        assert self._limit is not None
        return find_emu_counter(self._limit)

    def eflags(self) -> int:
        """Compute RFLAGS as it was when the CPU stopped."""
        _held.uc_reg_read(self._handle, _REG_EFLAGS, self._register_at)
        return self._register.value

    def write_register(self, register: int, value: int | tuple[int, int]) -> None:
        """Write a register by Unicorn's number, as an instruction would; an MSR as (number, value)."""
        self._uc.reg_write(register, value)

    def read_register(self, register: int) -> int:
        """Return a register by Unicorn's number."""
        return int(self._uc.reg_read(register))

    def read_msr(self, number: int) -> int:
        """Return a model-specific register."""
        return int(self._uc.reg_read(x86.UC_X86_REG_MSR, number))

    def flush_tlb(self) -> None:
        """Forget translations of linear addresses."""
        self._uc.ctl(uc.UC_CTL_TLB_FLUSH, uc.UC_CTL_IO_WRITE)

    def forget_code(self) -> None:
        """Forget translated code, after a write to RAM that is not the CPU's: Unicorn does not notice one."""
        self._uc.ctl(uc.UC_CTL_TB_FLUSH, uc.UC_CTL_IO_WRITE)

    def forget_block(self, address: int, size: int) -> None:
        """The same for code at linear addresses of the address space that the CPU is in."""
        self._uc.ctl_remove_cache(address, address + size)

    def close(self) -> None:
        """Free the CPU. Nothing may be called any more but `stop_between_instructions`, which does nothing then."""
        self._limit, self.stop = None, lambda: 0
        self._free()

    def abandon(self) -> None:
        """Never free the CPU: it is in the middle of something."""
        self._free.detach()
        _abandoned.append(self._uc)

    def physical(self, address: int) -> int | None:
        """Return the gpa of the code at a linear address of the running guest; None: it is not mapped."""
        gpa = ctypes.c_uint64()
        at = ctypes.c_uint64(address)
        if uclib.uc_vmem_translate(self._handle, at, uc.UC_PROT_EXEC, ctypes.byref(gpa)):
            return None
        return gpa.value

    def map_memory(self, gpa: int, memory: mmap.mmap, start: int = 0, end: int | None = None) -> None:
        """Let the CPU find `memory` from `start` to `end` at a physical address."""
        size = (len(memory) if end is None else end) - start
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + start
        self._uc.mem_map_ptr(gpa, size, uc.UC_PROT_ALL, address)

    def map_code(self, gpa: int, code: bytes) -> None:
        """Let the CPU find a page with `code` at a physical address."""
        self._uc.mem_map(gpa, PAGE, uc.UC_PROT_READ | uc.UC_PROT_EXEC)
        self._uc.mem_write(gpa, code)

    def map_mmio(self, start: int, end: int, read: MmioRead, write: MmioWrite) -> None:
        """Call back for each access to physical addresses; the callbacks get offsets from `start`."""
        self._uc.mmio_map(start, end - start, read, None, write, None)

    def hook_events(self, callback: OnEvent) -> None:
        """Call back for each exception and each intercept, with its number."""
        self._add(uc.UC_HOOK_INTR, _ON_EVENT(callback), *_EVERYWHERE)

    def hook_blocks(self, callback: OnBlock) -> None:
        """Call back for each block that was translated, with pointers to it and to the one before."""
        self._add(uc.UC_HOOK_EDGE_GENERATED, _ON_BLOCK(callback), *_EVERYWHERE)

    def hook_instruction(self, instruction: int, callback: Callable[..., int]) -> None:
        """Call back for SYSCALL, SYSENTER, IN or OUT, by Unicorn's number."""
        self._uc.hook_add(uc.UC_HOOK_INSN, callback, None, 1, 0, instruction)

    def hook_address(self, address: int, callback: OnCode) -> int:
        """Call back before the instruction at a linear address; returns the number of the hook.

        Only what is translated afterwards is hooked.
        """
        at = ctypes.c_uint64(address)
        number = self._add(uc.UC_HOOK_CODE, _ON_CODE(callback), at, at)
        self._hooked[number] = address
        self._note_hooks()
        return number

    def hook_accesses(self, first: int, last: int, callback: OnAccess) -> int:
        """Call back before loads and stores that begin at these gpas; returns the number of the hook.

        Only code that is translated while there is such a hook knows of them.
        """
        kinds = uc.UC_HOOK_MEM_READ | uc.UC_HOOK_MEM_WRITE
        return self._add(kinds, _ON_ACCESS(callback), ctypes.c_uint64(first), ctypes.c_uint64(last))

    def unhook(self, number: int) -> None:
        """Take a hook away."""
        _check(uclib.uc_hook_del(self._handle, ctypes.c_size_t(number)))
        del self._callbacks[number]
        if self._hooked.pop(number, None) is not None:
            self._note_hooks()

    def _note_hooks(self) -> None:
        self._hooked_addresses = frozenset(self._hooked.values())
        self.hooks_code = self.traced or bool(self._hooked)

    def _add(self, kind: int, callback: object, begin: ctypes.c_uint64, end: ctypes.c_uint64) -> int:
        number = ctypes.c_size_t()
        _check(uclib.uc_hook_add(self._handle, ctypes.byref(number), kind, callback, None, begin, end))
        self._callbacks[number.value] = callback
        return number.value


def _check(status: int) -> None:
    if status:
        raise ProcessorError(f"unicorn: {describe(status)}")


def describe(error: int) -> str:
    """Return Unicorn's text of an error."""
    return str(UcError(error))


_ON_EVENT: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
_ON_BLOCK: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(uc_tb), ctypes.POINTER(uc_tb), ctypes.c_void_p
)
_ON_ACCESS: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)
_ON_CODE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
