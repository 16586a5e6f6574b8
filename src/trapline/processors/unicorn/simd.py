"""The exceptions of SSE and AVX that Unicorn does not raise (APM vol. 2, 8.2.7, 8.2.14).

A misaligned operand of SSE is #GP. Unicorn has no AVX, but takes some of its instructions for those of SSE with the
same opcode: they are #UD.

Code is searched as it is translated. Each instruction whose operand must be aligned gets a hook that checks it before
it executes: the first `_CHECKS` times, since a hook takes some microseconds. A request to stop that comes in the middle
of a block, which is some twenty times a second, makes Unicorn call no more than the oldest hook until its end.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from unicorn import x86_const as x86

from trapline.arch.registers import CR0, CR4, MXCSR
from trapline.arch.vmcb import Vmcb
from trapline.asm.alignment import ALIGNMENT, AlignedOperand, aligned_operands, may_have_sse
from trapline.asm.avx import AvxInstruction, avx_instructions, may_have_avx
from trapline.errors import FaultError
from trapline.machine.linear import LONGEST

from .binding import Binding
from .hooks import Hooks
from .memory import Ram
from .pending import Pending
from .stops import Stop
from .uc_context import HF_CS32, HF_CS64, word

_CHECKS: Final = 256
_HOOKS: Final = 128
"""How many hooks there are at a time: each makes all the others slower. The oldest gives way."""
_GPRS, _SEGMENTS = word("gprs"), word("segments")
_SEGMENT_WORDS: Final = 3
_BASE: Final = 1
"""The word of a segment register that holds its base."""
_OFFSET: Final = ALIGNMENT - 1


class SimdChecks:
    """Stops the CPU before an instruction: with MISALIGNED if its operand is not aligned, with NO_AVX if it is AVX."""

    def __init__(self, vmcb: Vmcb, binding: Binding, hooks: Hooks, ram: Ram, pending: Pending) -> None:
        self._save = vmcb.save
        self._binding, self._hooks, self._ram, self._pending = binding, hooks, ram, pending
        self._words, self._context = binding.words, binding.context
        self._found: dict[int, AlignedOperand | AvxInstruction] = {}
        """What is to be checked, by address; what was checked often enough, too."""
        self._numbers: dict[int, int] = {}
        """The hooks, by address, the oldest first."""
        self._left: dict[int, int] = {}
        """How often each is to be checked yet."""
        self._blocks: list[tuple[int, int]] = []
        """Address and size of code that was translated without its hooks."""
        self._new: list[int] = []
        self._over: list[int] = []
        """Instructions to hook, and those whose hook has done enough."""
        hooks.on_translation = self._search

    @property
    def due(self) -> bool:
        """Whether `install` has something to do."""
        return bool(self._new or self._over)

    def install(self) -> None:
        """Set the hooks that are missing, and take those away that have done enough. While the CPU is stopped."""
        binding, numbers = self._binding, self._numbers
        binding.restore()  # Unicorn looks for code in the address space that the CPU is in
        over = [*self._over, *list(numbers)[: max(0, len(numbers) + len(self._new) - len(self._over) - _HOOKS)]]
        for address in over:
            if (number := numbers.pop(address, None)) is not None:
                binding.unhook(number)
        for address in self._new[-_HOOKS:]:
            numbers[address] = binding.hook_address(address, self._check)
        for address, size in self._blocks:
            binding.forget_block(address, size)
        for each in (self._new, self._over, self._blocks):
            each.clear()

    def _search(self, address: int, pieces: Sequence[tuple[int, int]]) -> None:
        """Look for instructions in a block that was translated, and is not executed yet."""
        try:
            code = b"".join(self._ram.read(*piece) for piece in pieces)
        except FaultError:
            return
        sse = bool(self._save.cr4 & CR4.OSFXSR) and may_have_sse(code)
        avx = may_have_avx(code)
        if not sse and not avx:
            return
        self._binding.save()
        hooked = True
        for one in self._checked(code, address, sse=sse, avx=avx):
            if self._found.get(one.address) == one:
                continue
            self._found[one.address] = one
            self._left[one.address] = _CHECKS
            if one.address not in self._numbers:
                self._new.append(one.address)
                hooked = False
        if not hooked:
            self._blocks.append((address, len(code)))
            self._pending.interrupt()  # the block does not begin before

    def _check(self, _: object, address: int, __: int, ___: object) -> None:
        if self._hooks.saved:
            return
        self._binding.save()
        one = self._found[address]
        if isinstance(one, AvxInstruction) and self._is_there(one):
            self._hooks.refuse(Stop.NO_AVX)
            return
        left = self._left[address] = self._left[address] - 1
        if isinstance(one, AlignedOperand) and self._address(one) & _OFFSET and self._counts(one):
            self._hooks.refuse(Stop.MISALIGNED)
        elif not left:
            self._over.append(address)
            self._pending.interrupt()

    def _address(self, one: AlignedOperand) -> int:
        """Return the linear address of an operand; the context is saved."""
        words, at = self._words, one.displacement
        if one.base >= 0:
            at += words[_GPRS + one.base]
        if one.scaled >= 0:
            at += words[_GPRS + one.scaled] * one.scale
        if one.segment >= 0:
            at += words[_SEGMENTS + _SEGMENT_WORDS * one.segment + _BASE]
        return at

    def _counts(self, one: AlignedOperand) -> bool:
        """Return whether the instruction is still the one that was found, and nothing else comes before its #GP."""
        if self._context.cr0 & (CR0.EM | CR0.TS) or self._binding.read_register(x86.UC_X86_REG_MXCSR) & MXCSR.MM:
            return False
        return self._is_there(one)

    def _is_there(self, one: AlignedOperand | AvxInstruction) -> bool:
        """Return whether an instruction is still the one that was found."""
        gpa = self._binding.physical(one.address)
        if gpa is None:
            return False
        try:
            code = self._ram.read(gpa, min(LONGEST, self._ram.size - gpa))
        except FaultError:
            return False
        avx = isinstance(one, AvxInstruction)
        return next(self._checked(code, one.address, sse=not avx, avx=avx), None) == one

    def _checked(self, code: bytes, address: int, *, sse: bool, avx: bool) -> Iterator[AlignedOperand | AvxInstruction]:
        """Yield the instructions that are to be checked; the context is saved."""
        if sse:
            yield from aligned_operands(code, address, self._bits)
        if avx:
            yield from avx_instructions(code, address, self._bits)

    @property
    def _bits(self) -> int:
        """The size of the code that the CPU executes; the context is saved."""
        flags = self._context.hflags
        return 64 if flags & HF_CS64 else 32 if flags & HF_CS32 else 16
