"""Guests that do with exceptions what kernels do: pages on demand, a program at CPL 3, a stack for #DF, many #UD."""

from functools import partial
from typing import Final

from trapline.arch import msr, paging
from trapline.arch.paging import PAGE
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.operands import EAX, ECX, EDX, R11, RAX, RCX, RDX, RSI, RSP, Mem

from . import places
from .kernel import Kernel, guest
from .sample import End, Sample

_PAGES: Final = 64
_LOOPS: Final = 20_000
_SYSTEM_CALL: Final = 0x80
_EXIT, _SAY, _NOTHING_RAISED = range(3)
"""System calls: end; print the text at RSI; end with a failure."""
_SYSRET_BASE: Final = 0x18 | 3
"""SYSRET takes SS from 8, CS from the one 16 bytes after it (APM 6.1.1)."""


def enter_user(kernel: Kernel) -> None:
    """Emit code that enters the program at CPL 3, and what serves its system calls: SYSCALL and INT 0x80."""
    code, user = kernel.code, kernel.user
    for label, number in (("end of the program", _EXIT), ("nothing raised", _NOTHING_RAISED)):
        user.label(label)
        user.mov(EAX, number)
        user.syscall()

    code.jmp("enter user")
    code.label("system call")
    code.mov(Mem(None, places.SAVED_RSP), RSP)
    code.mov(RSP, places.STACK)
    code.push(RCX)
    code.push(R11)
    code.call("serve")
    code.pop(R11)
    code.pop(RCX)
    code.mov(RSP, Mem(None, places.SAVED_RSP))
    code.sysretq()

    code.label("interrupt call")
    code.call("serve")
    code.iretq()

    code.label("serve")
    code.cmp(EAX, _SAY)
    code.je("print")
    code.cmp(EAX, _NOTHING_RAISED)
    code.je("nothing raised")
    code.jmp("done")

    code.label("enter user")
    for number, high, low in (
        (msr.STAR, _SYSRET_BASE << 16 | places.CODE_SELECTOR, 0),
        (msr.LSTAR, 0, "system call"),
        (msr.SFMASK, 0, RFLAGS.IF | RFLAGS.TF | RFLAGS.DF | RFLAGS.AC),
    ):
        code.mov(ECX, number)
        code.mov(EDX, high)
        code.mov(EAX, low)
        code.wrmsr()
    for word in (
        places.USER_DATA_SELECTOR,
        places.USER_STACK,
        RFLAGS.ALWAYS_ONE,
        places.USER_CODE_SELECTOR,
        places.USER,
    ):
        code.mov(EAX, word)
        code.push(RAX)
    code.iretq()
    kernel.gates[_SYSTEM_CALL] = "interrupt call"
    kernel.open_gates.add(_SYSTEM_CALL)


def _ring3(kernel: Kernel) -> None:
    user = kernel.user
    user.mov(RSI, kernel.texts("a system call by SYSCALL\n"))
    user.mov(EAX, _SAY)
    user.syscall()
    user.mov(RSI, kernel.texts("a system call by INT 0x80\n"))
    user.mov(EAX, _SAY)
    user.int(_SYSTEM_CALL)
    kernel.raises(lambda code: code.mov(EAX, Mem(None, places.CODE)), user=True)
    kernel.raises(lambda code: code.hlt(), user=True)
    enter_user(kernel)


def _demand_paging(kernel: Kernel) -> None:
    code = kernel.code
    code.mov(Mem(None, places.FREE, size=64), places.FRAMES)
    code.mov(RCX, places.LAZY)
    code.label("touch")
    code.mov(Mem(RCX), ECX)
    code.add(RCX, PAGE)
    code.cmp(RCX, places.LAZY + _PAGES * PAGE)
    code.jne("touch")
    code.mov(RCX, places.LAZY)
    code.label("read back")
    code.cmp(Mem(RCX), ECX)
    code.jne("fail")
    code.add(RCX, PAGE)
    code.cmp(RCX, places.LAZY + _PAGES * PAGE)
    code.jne("read back")
    code.cmp(Mem(None, places.COUNT, size=32), _PAGES)
    code.jne("fail")
    kernel.say(f"{_PAGES} page faults, {_PAGES} pages mapped, what was written is there")
    code.jmp("done")

    # The entry's place: LAZY_PAGES + number of the page * 8.
    code.label("page fault")
    code.push(RAX)
    code.push(RDX)
    code.inc(Mem(None, places.COUNT, size=32))
    code.mov(RDX, operands.CR2)
    code.sub(RDX, places.LAZY)
    code.shr(RDX, 12)
    code.mov(RAX, Mem(None, places.FREE))
    code.or_(RAX, paging.P | paging.RW)
    code.mov(Mem(None, places.LAZY_PAGES, RDX, 8), RAX)
    code.add(Mem(None, places.FREE, size=64), PAGE)
    code.pop(RDX)
    code.pop(RAX)
    code.add(RSP, 8)
    code.iretq()
    kernel.gates[Vector.PF] = "page fault"


def _double_fault(kernel: Kernel) -> None:
    code = kernel.code
    code.mov(RSP, places.STACK - PAGE)
    code.push(RAX)

    code.label("double fault")
    kernel.say("#DF on its own stack, handled")
    code.mov(RAX, Mem(RSP))
    code.test(RAX, RAX)
    code.jne("fail")  # the error code is always zero
    kernel.gates[Vector.DF] = "double fault"
    kernel.interrupt_stacks.add(Vector.DF)


def _ud_loop(kernel: Kernel) -> None:
    code = kernel.code
    code.mov(ECX, _LOOPS)
    code.label("again")
    code.ud2()
    code.dec(ECX)
    code.jne("again")
    code.cmp(Mem(None, places.COUNT, size=32), _LOOPS)
    code.jne("fail")
    code.jmp("done")

    code.label("undefined")
    code.inc(Mem(None, places.COUNT, size=32))
    code.add(Mem(RSP, size=64), 2)  # the length of UD2
    code.iretq()
    kernel.gates[Vector.UD] = "undefined"


def _panic(kernel: Kernel) -> None:
    code = kernel.code
    code.mov(RAX, places.UNMAPPED)
    code.mov(ECX, 0)
    code.mov(Mem(RAX), ECX)
    code.label("panic")
    kernel.say("KERNEL PANIC")
    code.jmp("fail")
    kernel.gates[Vector.PF] = "panic"


_PANICS: Final = "a write to no page, and a handler of #PF that panics"

PROGRAMS: Final = (
    *(
        Sample(name, description, vectors, End.DONE, partial(guest, description, fill))
        for name, description, vectors, fill in (
            ("demand-paging", f"{_PAGES} pages that are mapped as they are touched", (Vector.PF,), _demand_paging),
            ("ring3", "a program at CPL 3: SYSCALL, INT 0x80, #PF and #GP", (Vector.GP, Vector.PF), _ring3),
            (
                "double-fault",
                "a push to no stack, and #DF has a stack of its own",
                (Vector.DF, Vector.PF),
                _double_fault,
            ),
            ("ud-loop", f"UD2, {_LOOPS} times", (Vector.UD,), _ud_loop),
        )
    ),
    Sample("panic", _PANICS, (Vector.PF,), End.PANIC, partial(guest, _PANICS, _panic)),
)
