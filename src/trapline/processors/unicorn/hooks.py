"""What Unicorn calls back: exceptions and intercepts, calls, ports, memory that is not RAM, and translated code."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from unicorn import x86_const as x86

from trapline.arch.bits import M64
from trapline.arch.paging import PAGE
from trapline.arch.registers import CR0, RFLAGS

from .binding import NO_CODE_ERRORS, Binding, describe
from .stops import Stop
from .uc_context import CC_OP_EFLAGS, HF2_GIF, word

_ASKED: Final = int(Stop.ASKED)
_HFLAGS, _RIP = word("hflags"), word("rip")
_GIF: Final = HF2_GIF << 32
"""hflags2 is the upper half of that word."""
_BEFORE: Final = (Stop.BREAKPOINT, Stop.MISALIGNED, Stop.NO_AVX)
"""Stops by the hook of an instruction."""
_NO_TABLES: Final = 0xFFFF_F000
"""A CR3 where no RAM is: no page is mapped."""


class Bus(Protocol):
    """What the guest reaches beside RAM."""

    def permits(self, port: int, size: int) -> bool:
        """Return whether the guest may access a port."""

    def port_read(self, port: int, size: int) -> int:
        """Return what IN reads."""

    def port_write(self, port: int, size: int, value: int) -> None:
        """Do what OUT does."""

    def mmio_read(self, gpa: int, size: int) -> int:
        """Return what a load reads."""

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Do what a store does."""


class Hooks:
    """The callbacks of one CPU. `event` says why it stopped; the context then holds the state to go on from."""

    def __init__(self, binding: Binding, bus: Bus, note_code: Callable[[int, int], None]) -> None:
        """`note_code(gpa, size)` is called for bytes of one page that were translated: the CPU holds a copy of them."""
        self._binding, self._bus, self._note_code = binding, bus, note_code
        self.event = _ASKED
        """A number of `Stop`, a vector, or INTERCEPTED and an exit code."""
        self.failure = ""
        """After FAILED: Unicorn's text of the error."""
        self.saved = False
        """The context holds what counts already: what Unicorn does until it stops does not."""
        self._refused = False
        """The same, and nothing may change memory or devices."""
        self.on_translation: Callable[[int, list[tuple[int, int]]], object] = lambda address, pieces: None
        """Called with the linear address of a block that was translated and is not executed yet, and with gpa and size
        of its parts, each of one page."""
        self.execute: Callable[[int], int] = binding.run
        """Executes from an address, and returns Unicorn's error."""
        self._raised: BaseException | None = None
        binding.hook_events(self._event_hook())
        binding.hook_blocks(self._on_block)
        # SYSCALL first: once a stop is requested, its helper calls one hook and no more.
        for instruction, hook in (
            (x86.UC_X86_INS_SYSCALL, partial(self._on_call, Stop.SYSCALL)),
            (x86.UC_X86_INS_SYSENTER, partial(self._on_call, Stop.SYSENTER)),
            (x86.UC_X86_INS_IN, self._on_in),
            (x86.UC_X86_INS_OUT, self._on_out),
        ):
            binding.hook_instruction(instruction, self._guarded(hook))

    def run(self, address: int) -> int:
        """Run from the context until a stop, and save the state there; returns the event."""
        self.event = _ASKED
        error = self.execute(address)
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if self.event < 0 and not self.saved:
            self._binding.save()
            if error:
                self.event = Stop.NO_CODE if error in NO_CODE_ERRORS else Stop.FAILED
                self.failure = describe(error)
        if self._refused:
            self._binding.flush_tlb()  # of pages that are not the guest's
        self._refused = self.saved = False
        return self.event

    def resume(self) -> int:
        """Run from where the context is."""
        return self.run(self._binding.words[_RIP])

    def map_bus(self, start: int, end: int) -> None:
        """Let loads and stores at physical addresses reach the bus."""
        bus = self._bus

        def read(_: Any, offset: int, size: int, __: Any) -> int:
            return M64 >> 64 - 8 * size if self._refused else bus.mmio_read(start + offset, size)

        def write(_: Any, offset: int, size: int, value: int, __: Any) -> None:
            if not self._refused:
                bus.mmio_write(start + offset, size, value)

        self._binding.map_mmio(start, end, read, write)

    def _event_hook(self) -> Callable[[Any, int, Any], None]:
        """Return what is called for each exception and each intercept: the hot one."""
        binding = self._binding
        save, restore, stop, words = binding.save, binding.restore, binding.stop, binding.words

        def on_event(_: Any, number: int, __: Any) -> None:
            try:
                if not self.saved:
                    self.event = number
                    save()
                    if words[_HFLAGS] & _GIF:
                        # Unicorn takes interrupts before it stops, and would take this one for ever.
                        words[_HFLAGS] &= ~_GIF
                        restore()
                stop()
            except BaseException as error:  # noqa: BLE001  # Ctrl-C: a callback cannot raise, `run` does
                self._raised = error
                stop()

        return on_event

    def _on_block(self, _: Any, block: Any, *__: Any) -> None:
        """A block was translated; it may reach into a second page."""
        start, size = block[0].pc, block[0].size
        pc, pieces = start, []
        while size > 0:
            here = min(size, PAGE - pc % PAGE)
            gpa = self._binding.physical(pc)
            if gpa is not None:
                self._note_code(gpa, here)
                pieces.append((gpa, here))
            pc, size = pc + here, size - here
        self.on_translation(start, pieces)

    def _guarded(self, hook: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            try:
                return hook(*arguments)
            except BaseException as error:  # noqa: BLE001  # as above
                self._raised = error
                self._binding.stop()
                return 0

        return call

    def _on_in(self, _: Any, port: int, size: int, __: Any) -> int:
        if self._refused:
            return 0
        if self._bus.permits(port, size):
            return self._bus.port_read(port, size)
        self.refuse(Stop.PORT)
        return 0

    def _on_out(self, _: Any, port: int, size: int, value: int, __: Any) -> int:
        if self._refused:
            return 0
        if self._bus.permits(port, size):
            self._bus.port_write(port, size, value)
        else:
            self.refuse(Stop.PORT)
        return 0

    def _on_call(self, event: int, *_: Any) -> int:
        if self.saved:
            return 0
        self._binding.save()
        self._close_window()
        self.saved, self.event = True, event
        self._binding.stop()
        return 0

    def _close_window(self) -> None:
        """Let Unicorn find no interrupt before it stops: it would find it for ever. For what was just saved."""
        words = self._binding.words
        if words[_HFLAGS] & _GIF:
            words[_HFLAGS] &= ~_GIF
            self._binding.restore()

    def refuse(self, event: int) -> None:
        """Leave the guest before the instruction that calls back, unless it is left already.

        Unicorn ends a block of instructions before it stops. What comes after this one must change no memory,
        and so no page is mapped any more; the context is already saved, and what Unicorn does later is dropped.
        """
        if self.saved:
            return
        binding, context = self._binding, self._binding.context
        binding.save()
        # Status flags cannot be computed later: what comes after this instruction changes them.
        # Of a hooked instruction they are in cc_src already (see `hook_flags`), but not yet as its hook is called.
        if event in _BEFORE or not (binding.hooks_code and binding.is_hooked()):
            context.cc_src = binding.eflags() & RFLAGS.STATUS
        context.cc_op = CC_OP_EFLAGS
        self._close_window()
        self._refused = self.saved = True
        self.event = event
        binding.write_register(x86.UC_X86_REG_CR3, _NO_TABLES)
        binding.write_register(x86.UC_X86_REG_CR0, CR0.PE | CR0.PG)
        binding.stop()
