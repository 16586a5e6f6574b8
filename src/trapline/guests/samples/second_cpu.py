"""Guests that start a second CPU, and what goes wrong there: its GDT, its EFER, its stack, its first page."""

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from trapline.arch import msr, paging
from trapline.arch.paging import PAGE
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AX, DS, EAX, ECX, EDX, ES, RAX, RBX, RDX, RSP, SS, Mem
from trapline.devices import interrupt_command as ipi
from trapline.devices import lapic

from . import places
from .kernel import Kernel, guest
from .sample import End, Sample

_TRAMPOLINE: Final = 0x8000
"""Where the second CPU starts: below 1 MiB, a page as the startup IPI names it."""
_GDTR: Final = 0x80
"""The offset of what its LGDT loads."""
_HALT: Final = 0x90
"""That of the handler of its exceptions in real mode."""
_FAR_JUMP: Final = 6
"""Bytes of JMP ptr16:32 after its prefix: offset, then selector."""
_WRONG: Final = 0x2_0000
"""Zeros, and after a page all ones."""
_STACK: Final = places.FRAMES + 2 * PAGE
"""The end of the stack of the second CPU, one page."""
_ALIVE: Final = places.VARIABLES + 48
_PATIENCE: Final = 1 << 32
"""Ticks of the time stamp counter for which the first CPU waits."""
_APIC: Final = lapic.BASE
_GARBAGE: Final = 0xDEAD_BEEF_DEAD_BEEF
_ASSERT: Final = 1 << 14
_MODE: Final = 8
"""The place of the delivery mode in the interrupt command register."""


class _Second(NamedTuple):
    """What the second CPU does."""

    gdtr: int = _TRAMPOLINE + _GDTR
    """What its LGDT reads, as 16-bit code names it."""
    efer: int = EFER.LME | EFER.SCE | EFER.NXE
    start: int = _TRAMPOLINE
    stack: int = _STACK
    push: int | None = None
    """What it pushes first."""


def _trampoline(second: _Second) -> bytes:
    """Return the real mode code of the second CPU: straight to long mode (APM vol. 2, 14.6)."""
    code = Assembler(16)
    code.cli()
    code.xor(AX, AX)
    code.mov(DS, AX)
    code.lgdt(Mem(None, second.gdtr & 0xFFFF))
    code.mov(EAX, CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT)
    code.mov(operands.CR4, EAX)
    code.mov(EAX, places.PML4)
    code.mov(operands.CR3, EAX)
    code.mov(ECX, msr.EFER)
    code.mov(EAX, second.efer)
    code.xor(EDX, EDX)
    code.wrmsr()
    code.mov(EAX, CR0.PE | CR0.MP | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.PG)
    code.mov(operands.CR0, EAX)
    code.far_jump(places.CODE_SELECTOR, 0)  # the offset is patched
    return code.assemble(_TRAMPOLINE)


def _store(code: Assembler, address: int, data: bytes) -> None:
    """Emit code that stores bytes."""
    for at in range(0, len(data), 4):
        word = int.from_bytes(data[at : at + 4].ljust(4, b"\0"), "little")
        code.mov(Mem(None, address + at, size=32), word)


def _prepare(kernel: Kernel, second: _Second) -> None:
    """Emit code that maps the local APIC, and puts what the second CPU needs in its page."""
    code, blob = kernel.code, _trampoline(second)
    directory = paging.table_index(_APIC, 3), paging.table_index(_APIC, 2)
    large = paging.P | paging.RW | paging.PCD | paging.PS
    _store(code, places.PDPT + 8 * directory[0], (places.LAZY_DIRECTORY | paging.P | paging.RW).to_bytes(8, "little"))
    entry = (_APIC & -paging.page_size(2) | large).to_bytes(8, "little")
    _store(code, places.LAZY_DIRECTORY + 8 * directory[1], entry)
    _store(code, _TRAMPOLINE, blob.ljust(_GDTR, b"\0"))
    code.mov(RAX, Mem(None, places.GDTR))
    code.mov(Mem(None, _TRAMPOLINE + _GDTR), RAX)
    _store(code, places.GDTR & 0xFFFF, bytes(8))
    _store(code, _TRAMPOLINE + _HALT, b"\xfa\xf4\xeb\xfd")  # cli; hlt again and again
    _store(code, 4 * Vector.UD, (_TRAMPOLINE + _HALT).to_bytes(4, "little"))
    code.mov(EAX, "second cpu")
    code.mov(Mem(None, _TRAMPOLINE + len(blob) - _FAR_JUMP), EAX)
    code.mov(ECX, msr.EFER)
    code.rdmsr()
    code.or_(EAX, EFER.NXE)
    code.wrmsr()
    code.or_(Mem(None, places.PAGES + 8 * paging.table_index(_STACK - PAGE, 1) + 4, size=32), paging.NX >> 32)


def _start(code: Assembler, second: _Second) -> None:
    """Emit a routine that sends INIT and two startup IPIs to local APIC 1, and waits until the CPU lives."""
    code.label("start it")
    for register, value in (
        (lapic.COMMAND + 0x10, 1 << 24),
        (lapic.COMMAND, ipi.INIT << _MODE | _ASSERT),
        (lapic.COMMAND, ipi.STARTUP << _MODE | _ASSERT | second.start // PAGE),
        (lapic.COMMAND, ipi.STARTUP << _MODE | _ASSERT | second.start // PAGE),
    ):
        code.mov(EAX, value)
        code.mov(RBX, _APIC + register)
        code.mov(Mem(RBX), EAX)
    _ticks(code)
    code.mov(RBX, RAX)
    code.label("wait for it")
    code.pause()
    code.cmp(Mem(None, _ALIVE, size=32), 1)
    code.je("it lives")
    _ticks(code)
    code.sub(RAX, RBX)
    code.mov(RDX, _PATIENCE)
    code.cmp(RAX, RDX)
    code.jb("wait for it")
    code.jmp("no answer")
    code.label("it lives")
    code.ret()


def _ticks(code: Assembler) -> None:
    """Emit code that reads the time stamp counter into RAX; like all that waits, it leaves the stack alone."""
    code.rdtsc()
    code.shl(RDX, 32)
    code.or_(RAX, RDX)


def _second_cpu(kernel: Kernel, second: _Second) -> None:
    """Emit the 64-bit code of the second CPU."""
    code = kernel.code
    code.label("second cpu")
    code.mov(EAX, places.DATA_SELECTOR)
    for segment in (DS, ES, SS):
        code.mov(segment, AX)
    code.mov(RSP, second.stack)
    kernel.load_idt()
    if second.push is not None:
        code.mov(RAX, second.push)
        code.push(RAX)
    kernel.say("the second CPU is in 64-bit code")
    kernel.raises(lambda code: code.ud2())
    code.inc(Mem(None, _ALIVE, size=32))
    code.label("rest")
    code.cli()
    code.hlt()
    code.jmp("rest")


def _fill(kernel: Kernel, second: _Second) -> None:
    _prepare(kernel, second)
    code = kernel.code
    code.call("start it")
    kernel.say("the second CPU has handled its exception")
    code.jmp("done")
    _start(code, second)
    code.label("no answer")
    kernel.say("no second CPU answered; --cpus 2 gives the machine one")
    code.jmp("fail")
    code.label("panic")
    kernel.say("KERNEL PANIC")
    code.jmp("fail")
    _second_cpu(kernel, second)
    kernel.gates[Vector.GP] = "panic"


def _wrong_page(kernel: Kernel, second: _Second) -> None:
    code = kernel.code
    code.mov(RBX, _WRONG)
    code.label("zeros")
    code.mov(Mem(RBX, size=32), 0)
    code.mov(Mem(RBX, PAGE, size=32), -1)
    code.add(RBX, 4)
    code.cmp(RBX, _WRONG + PAGE)
    code.jne("zeros")
    _fill(kernel, second)


_ROWS: Final[tuple[tuple[str, str, tuple[Vector, ...], End, Callable[[Kernel, _Second], None], _Second], ...]] = (
    ("ap-trampoline", "a second CPU goes to 64-bit code, and handles a #UD", (Vector.UD,), End.DONE, _fill, _Second()),
    (
        "ap-gdt-high",
        "the second CPU looks for its GDT below 64 KiB",
        (Vector.DF, Vector.GP),
        End.SHUTDOWN,
        _fill,
        _Second(gdtr=places.GDTR),
    ),
    (
        "ap-no-nxe",
        "the second CPU uses pages with NX, and EFER.NXE is clear",
        (Vector.DF, Vector.PF),
        End.SHUTDOWN,
        _fill,
        _Second(efer=EFER.LME | EFER.SCE),
    ),
    (
        "ap-stack-shared",
        "the second CPU uses the stack of the first",
        (Vector.UD, Vector.GP),
        End.PANIC,
        _fill,
        _Second(stack=places.STACK, push=_GARBAGE),
    ),
    (
        "ap-wrong-page",
        "the startup IPI names a page without code",
        (Vector.UD,),
        End.PANIC,
        _wrong_page,
        _Second(start=_WRONG),
    ),
)


def _filler(fill: Callable[[Kernel, _Second], None], second: _Second) -> Callable[[Kernel], None]:
    return lambda kernel: fill(kernel, second)


SECOND_CPU: Final = tuple(
    Sample(name, description, vectors, end, partial(guest, description, _filler(fill, second)), cpus=2)
    for name, description, vectors, end, fill, second in _ROWS
)
