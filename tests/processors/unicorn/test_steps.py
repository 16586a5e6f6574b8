"""TF in the VMCB with #DB intercepted: one instruction at a time, as the hypervisor steps."""

import pytest

from trapline.arch.exits import ExitCode
from trapline.arch.registers import DR6, EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.operands import EBX
from trapline.machine.processor import Outcome
from trapline.testing.conformance.modes import (
    CODE,
    CODE_32,
    CODE_64,
    DATA,
    DATA_32,
    KERNEL_STACK,
    LONG,
    PAGED_32,
    PROTECTED_32,
    REAL,
    VIRTUAL,
    handler,
)

DB_EXIT = 0x40 + Vector.DB
HANDLER = 0x7000
KERNEL = 0x7100


def step(guest):
    """Step once, and return RIP."""
    guest.save.rflags |= RFLAGS.TF
    guest.save.dr6 = DR6.FIXED
    assert guest.exit() == DB_EXIT
    assert guest.save.dr6 == DR6.FIXED | DR6.BS
    return guest.save.rip


@pytest.fixture
def execute(start):
    """Return a function that starts a guest before machine code, with #DB intercepted."""

    def execute(code, **options):
        guest = start(*["nop"] * 24, "cpuid", exceptions=1 << Vector.DB, **options)
        guest.memory.write(CODE, bytes.fromhex(code))
        guest.gprs.rcx, guest.gprs.rdx, guest.gprs.rsi, guest.gprs.rdi = 3, 0x80, DATA, DATA + 0x100
        guest.save.rax = guest.save.cr0
        return guest

    return execute


@pytest.mark.parametrize("mode", [REAL, VIRTUAL, PROTECTED_32, PAGED_32, LONG], ids=lambda mode: mode.name)
def test_one_instruction_at_a_time(start, mode):
    lines = "nop", ("inc", EBX), "b:", ("jmp", "c"), "nop", "c:", "nop", "nop"
    guest = start(*lines, mode=mode, cpl=mode.cpls[-1], exceptions=1 << Vector.DB)
    c = guest.labels["c"]
    assert [step(guest) for _ in range(5)] == [CODE + 1, guest.labels["b"], c, c + 1, c + 2]
    assert guest.gprs.rbx == 1


@pytest.mark.parametrize(
    "code",
    [
        "fa",  # CLI
        "fb",  # STI: its shadow holds interrupts, and no trap
        "9c",  # PUSHFD
        "ee",  # OUT DX, AL
        "e621",  # OUT 21h, AL: the interrupt controller
        "ec",  # IN AL, DX
        "0f22c0",  # MOV CR0, EAX
        "0f23f9",  # MOV DR7, ECX
        "0f20c3",  # MOV EBX, CR0
        "8b1d3000e0fe",  # MOV EBX, [FEE00030h]
        "891d8000e0fe",  # MOV [FEE00080h], EBX
        "8ed8",  # MOV DS, AX
        "a4",  # MOVSB
        "f00fb10e",  # LOCK CMPXCHG [ESI], ECX
        "60",  # PUSHAD
        "f4",  # HLT
        "0f01f9",  # RDTSCP
        "0fae06",  # FXSAVE [ESI]
    ],
)
def test_instructions_of_many_kinds(execute, code):
    guest = execute(code)
    guest.save.rax = DATA_32 if code == "8ed8" else guest.save.rax
    assert step(guest) == CODE + len(code) // 2


def test_a_string_instruction_is_one_iteration(execute):
    guest = execute("f3a4")  # REP MOVSB
    seen = [(step(guest), guest.gprs.rcx, guest.gprs.rdi) for _ in range(3)]
    assert seen == [(CODE, 2, DATA + 0x101), (CODE, 1, DATA + 0x102), (CODE + 2, 0, DATA + 0x103)]


def test_mov_ss_holds_the_trap_for_one_instruction(execute):
    guest = execute("8ed0 90")  # MOV SS, AX; NOP (APM 13.1.4)
    guest.save.rax = DATA_32
    assert step(guest) == CODE + 3


def test_popf_that_clears_tf_traps_once_more(execute):
    guest = execute("6a02 9d 90")  # PUSH 2; POPFD; NOP
    assert [step(guest), step(guest)] == [CODE + 2, CODE + 3]
    assert not guest.save.rflags & RFLAGS.TF


def test_popf_that_sets_tf_traps_after_the_next(execute):
    guest = execute("6802010000 9d 90")  # PUSH 102h; POPFD; NOP
    assert guest.exit() == DB_EXIT
    assert guest.save.rip == CODE + 7


def test_iret(execute):
    guest = execute(f"6a02 6a{CODE_32:02x} 6800700000 cf")  # PUSH 2; PUSH CS; PUSH HANDLER; IRETD
    assert [step(guest) for _ in range(4)][-1] == HANDLER
    assert not guest.save.rflags & RFLAGS.TF


@pytest.mark.parametrize("mask", [0, RFLAGS.TF])
def test_syscall_traps_unless_it_clears_tf(execute, mask):
    guest = execute("0f05", mode=LONG, cpl=3)
    guest.memory.write(KERNEL, b"\x90\x0f\xa2")
    save = guest.save
    save.efer |= EFER.SCE
    save.star, save.lstar, save.sfmask = CODE_64 << 32, KERNEL, mask
    save.rflags |= RFLAGS.TF
    assert guest.exit() == (ExitCode.CPUID if mask else DB_EXIT)
    assert (save.rip, save.cpl) == (KERNEL + 1 if mask else KERNEL, 0)
    assert guest.gprs.r11 & RFLAGS.TF


def test_sysenter_traps_in_the_kernel(execute):
    guest = execute("0f34", cpl=3)
    save = guest.save
    save.sysenter_cs, save.sysenter_esp, save.sysenter_eip = CODE_32, KERNEL_STACK - 64, KERNEL
    assert step(guest) == KERNEL
    assert save.cpl == 0


@pytest.mark.parametrize("code", ["cd40", "cc", "0f0b"])
def test_the_start_of_a_handler_is_no_step(execute, code):
    """INT 40h, INT3 and UD2: the handler starts with TF clear, and CPUID is its first instruction."""
    guest = execute(code)
    guest.save.rflags |= RFLAGS.TF
    rsp = guest.save.rsp
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.rip == handler({"cd40": 0x40, "cc": Vector.BP, "0f0b": Vector.UD}[code])
    assert guest.u32(rsp - 4) & RFLAGS.TF


def test_a_halted_guest_is_still_halted_after_the_step(execute):
    guest = execute("fa f4")  # CLI; HLT
    assert [step(guest), step(guest)] == [CODE + 1, CODE + 2]
    guest.save.rflags &= ~RFLAGS.TF
    assert guest.run() is Outcome.HALTED
