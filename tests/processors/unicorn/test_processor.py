import os
import signal
import threading
import time

import pytest

from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode, set_intercept
from trapline.arch.registers import CR0, CR4, DR6, EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import IntCtl
from trapline.asm.operands import AL, DX, EAX, EBX, ECX, EDX, Mem
from trapline.machine.processor import Outcome
from trapline.testing.conformance.modes import (
    CODE,
    CODE_32,
    CODE_64,
    DATA,
    KERNEL_STACK,
    LONG,
    PAGED_32,
    PROTECTED_32,
    STACK,
    TSS,
    UNMAPPED,
    USER_CODE_32,
)

HANDLER = 0x7000
IRQ0 = 0x20
DB_EXIT = 0x40 + Vector.DB
GP_EXIT = 0x40 + Vector.GP
UD_EXIT = 0x40 + Vector.UD


def out(port, value):
    return (("mov", EDX, port), ("mov", EAX, value), ("out", DX, AL))


def interrupts(mask=0xFE):
    """Remap the PICs to 0x20, let IRQ 0 pass, and let the PIT tick 1000 times a second."""
    wanted = ((0x20, 0x11), (0x21, IRQ0), (0x21, 4), (0x21, 1), (0x21, mask), (0xA1, 0xFF))
    timer = ((0x43, 0x34), (0x40, 1193 & 0xFF), (0x40, 1193 >> 8))
    return tuple(line for port, value in (*wanted, *timer) for line in out(port, value))


COUNT = ("push", EAX), ("inc", Mem(None, DATA, size=32)), ("mov", EAX, 0x20), ("out", 0x20, AL), ("pop", EAX), "iretd"


def test_ticks_interrupt_a_loop(start):
    guest = start(
        *interrupts(), "sti", "again:", ("cmp", Mem(None, DATA, size=32), 5), ("jb", "again"), "end:", "cpuid"
    )
    guest.handle(IRQ0, *COUNT, at=HANDLER)
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.rip == guest.labels["end"]
    assert guest.u32(DATA) >= 5


def test_a_halted_guest_sleeps_and_wakes(start):
    guest = start(*interrupts(), "sti", "hlt", "hlt", "hlt", "end:", "cpuid")
    guest.handle(IRQ0, *COUNT, at=HANDLER)
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.rip == guest.labels["end"]
    assert guest.u32(DATA) >= 3


def test_the_host_holds_the_interrupts_of_the_machine(start):
    """With V_INTR_MASKING the host's RFLAGS.IF masks them, and the host never sets it (APM 15.21.1)."""
    counts = ("sti", "again:", ("cmp", Mem(None, DATA, size=32), 0), ("je", "again"), "end:", "cpuid")
    guest = start(*interrupts(), *counts)
    guest.handle(IRQ0, *COUNT, at=HANDLER)
    guest.control.int_ctl |= IntCtl.V_INTR_MASKING
    assert guest.run(0.1) is Outcome.DEADLINE
    assert (guest.u32(DATA), guest.save.rflags & RFLAGS.IF) == (0, RFLAGS.IF)
    guest.control.int_ctl &= ~IntCtl.V_INTR_MASKING
    assert guest.exit() == ExitCode.CPUID
    assert guest.u32(DATA) > 0


def test_an_interrupt_of_the_vmcb_passes_where_the_host_holds_the_machines(start):
    guest = start(*interrupts(), "sti", "again:", ("jmp", "again"))
    guest.handle(0x40, "cpuid", at=HANDLER)
    guest.control.int_ctl = IntCtl.V_INTR_MASKING
    assert guest.run(0.05) is Outcome.DEADLINE
    guest.control.int_ctl |= IntCtl.V_IRQ | IntCtl.V_IGN_TPR | 0x40 << IntCtl.VECTOR_SHIFT
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.rip == HANDLER


def test_an_interrupt_of_the_vmcb_is_noticed_at_once(start):
    guest = start(*out(0x21, 0xFF), "sti", "end:", "cpuid", "cpuid")
    guest.handle(0x40, "cpuid", at=HANDLER)
    guest.exit()
    guest.exit()  # whatever the machine wants is serviced
    for rip in (guest.labels["end"], guest.labels["end"] + 2):
        guest.save.rip, guest.save.rflags = rip, guest.save.rflags | RFLAGS.IF
        guest.control.int_ctl = IntCtl.V_IRQ | IntCtl.V_IGN_TPR | 0x40 << IntCtl.VECTOR_SHIFT
        guest.control.interrupt_shadow = 0
        assert guest.exit() == ExitCode.CPUID
        assert guest.save.rip == HANDLER


def test_an_nmi_waits_for_the_iret_of_the_one_before(start):
    guest = start("again:", ("jmp", "again"))
    guest.handle(Vector.NMI, ("inc", Mem(None, DATA, size=32)), "cpuid", "nop", "cpuid", "iretd", at=HANDLER)
    guest.memory.write(DATA, bytes(4))
    for count, rip in ((1, HANDLER + 6), (1, HANDLER + 9), (2, HANDLER + 6)):
        guest.processor.machine.press_nmi()
        if count == 1:
            guest.processor.kick()
            assert guest.run() is Outcome.KICKED
        assert guest.exit() == ExitCode.CPUID
        assert (guest.u32(DATA), guest.save.rip) == (count, rip)
        guest.save.rip += 2


def test_a_guest_halted_while_its_interrupts_are_held_waits_for_nothing(start):
    guest = start(*interrupts(), "sti", "hlt", "end:", "cpuid")
    guest.handle(IRQ0, *COUNT, at=HANDLER)
    guest.control.int_ctl |= IntCtl.V_INTR_MASKING
    assert guest.run() is Outcome.HALTED
    guest.control.int_ctl = 0
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.rip == guest.labels["end"]
    assert guest.u32(DATA) > 0


def test_a_guest_that_nothing_wakes_is_halted_for_good(start):
    assert start("cli", "hlt", "cpuid").run() is Outcome.HALTED


@pytest.mark.parametrize("event", [Event(0x40, EventType.INTR), Event(Vector.NMI, EventType.NMI)])
def test_an_injected_event_wakes_a_halted_guest(start, event):
    guest = start(*interrupts(mask=0xFF), "sti", "hlt", "cpuid")
    assert guest.run(0.1) in (Outcome.HALTED, Outcome.DEADLINE)
    guest.control.event_inj = encode(event)
    assert guest.exit() == ExitCode.CPUID


def test_an_interrupt_that_exits_wakes_a_halted_guest(start):
    guest = start(*interrupts(), "sti", "hlt", "end:", "cpuid")
    guest.control.int_ctl |= IntCtl.V_INTR_MASKING
    assert guest.run() is Outcome.HALTED
    set_intercept(guest.control, ExitCode.INTR)
    guest.control.int_ctl = 0
    assert guest.exit() == ExitCode.INTR
    assert guest.save.rip == guest.labels["end"]
    guest.save.rflags &= ~RFLAGS.IF
    assert guest.exit() == ExitCode.CPUID


def test_a_halted_guest_that_is_moved_is_awake(start):
    guest = start("cli", "hlt", "nop", "end:", "cpuid")
    assert guest.run() is Outcome.HALTED
    guest.save.rip = guest.labels["end"]
    assert guest.exit() == ExitCode.CPUID


def test_an_io_breakpoint_of_the_guest_is_there_after_an_exit(start):
    """Port 80h in DR0, and DR7 with L0 and R/W0 = 10b (APM vol. 2, 13.1.1.4)."""
    guest = start(*["nop"] * 40, exceptions=1 << Vector.DB)
    guest.save.cr4 |= CR4.DE
    guest.memory.write(CODE, bytes.fromhex("b880000000 0f23c0 b801040200 0f23f8 0fa2 e680 0fa2"))
    assert guest.exit() == ExitCode.CPUID
    guest.save.rip += 2
    guest.save.gdtr.limit -= 1  # everything is loaded
    assert guest.exit() == DB_EXIT
    assert guest.save.rip == CODE + 20
    assert guest.save.dr6 & DR6.B0


def test_a_loop_stops_at_the_deadline(start):
    guest = start("again:", ("jmp", "again"))
    begin = time.monotonic()
    assert guest.run(0.1) is Outcome.DEADLINE
    assert 0.09 < time.monotonic() - begin < 0.5
    assert guest.save.rip == CODE


def test_a_halted_guest_stops_at_the_deadline(start):
    guest = start(*interrupts(), "sti", "again:", "hlt", ("jmp", "again"))
    guest.handle(IRQ0, *COUNT, at=HANDLER)
    begin = time.monotonic()
    assert guest.run(0.1) is Outcome.DEADLINE
    assert time.monotonic() - begin < 0.5


def test_a_kick_stops_a_loop_that_has_no_deadline(start):
    guest = start("again:", ("jmp", "again"))
    kicker = threading.Timer(0.05, guest.processor.kick)
    kicker.start()
    begin = time.monotonic()
    assert guest.run(None) is Outcome.KICKED
    assert time.monotonic() - begin < 0.5
    kicker.join()


LAPIC_ON = (("mov", EAX, 0x1FF), ("mov", Mem(None, 0xFEE000F0), EAX))
FAR_OFF = (
    *LAPIC_ON,
    *(("mov", EAX, 0x40), ("mov", Mem(None, 0xFEE00320), EAX)),
    *(("mov", EAX, 0xB), ("mov", Mem(None, 0xFEE003E0), EAX)),
    *(("mov", EAX, 0xFFFF_FFFF), ("mov", Mem(None, 0xFEE00380), EAX)),
)
"""A timer that ends in some seconds."""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.06, 0.12])
def test_a_kick_wakes_a_guest_that_sleeps(start, delay):
    guest = start(*out(0x21, 0xFF), *FAR_OFF, "sti", "hlt", "cpuid")
    kicker = threading.Timer(delay, guest.processor.kick)
    kicker.start()
    begin = time.monotonic()
    assert guest.run(None) is Outcome.KICKED
    assert time.monotonic() - begin < delay + 0.3
    kicker.join()


def test_ctrl_c_ends_a_loop(start):
    guest = start("again:", ("jmp", "again"))
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    sender.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        guest.run(None)
    assert time.monotonic() - begin < 0.5
    sender.join()


def test_ctrl_c_ends_a_guest_full_of_exits(start):
    """The signal may come while Python answers a port access in the middle of an instruction."""
    guest = start(("mov", EDX, 0x80), "again:", ("out", DX, AL), ("jmp", "again"))
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    sender.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        guest.run(None)
    assert time.monotonic() - begin < 0.5
    sender.join()
    assert guest.run(0.05) is Outcome.DEADLINE  # and the guest could go on


def test_stops_never_repeat_an_instruction(start):
    rounds = 600_000
    guest = start(
        ("mov", ECX, rounds),
        "again:",
        ("inc", Mem(None, DATA, size=32)),
        ("add", Mem(None, DATA + 4, size=32), EBX),
        ("dec", ECX),
        ("jne", "again"),
        "end:",
        "cpuid",
    )
    guest.gprs.rbx = 3
    done = threading.Event()

    def kick():
        while not done.is_set():
            guest.processor.kick()
            time.sleep(0.0002)

    kicker = threading.Thread(target=kick)
    kicker.start()
    kicks = 0
    while guest.run() is Outcome.KICKED:
        kicks += 1
    done.set()
    kicker.join()
    assert guest.control.exit_code == ExitCode.CPUID
    assert kicks > 10
    assert (guest.u32(DATA), guest.u32(DATA + 4)) == (rounds, 3 * rounds)


def test_close_leaves_no_thread(start):
    before = threading.active_count()
    guest = start("cpuid")
    assert threading.active_count() == before + 1
    guest.exit()
    guest.processor.close()
    assert threading.active_count() == before
    guest.processor.close()
    assert guest.run() is Outcome.OFF


def test_a_reset_loads_the_image_again(start):
    guest = start(("mov", Mem(None, CODE, size=32), 0), *out(0x64, 0xFE), "again:", ("jmp", "again"))
    before = guest.memory.read(CODE, 4)
    assert [guest.run(), guest.run()] == [Outcome.LEAVING, Outcome.RESET]
    assert guest.memory.read(CODE, 4) == before
    assert guest.control.asid == 1
    assert guest.control.intercept_misc2 == 0


def test_a_guest_ends_its_machine_with_a_status(start):
    guest = start(*out(0xF4, 21), "again:", ("jmp", "again"))
    assert [guest.run(), guest.run()] == [Outcome.LEAVING, Outcome.OFF]
    assert guest.processor.exit_status == 43
    assert guest.run() is Outcome.OFF


def test_consoles_get_what_is_written(start):
    said, debugged = [], []
    guest = start(*out(0x3F8, ord("a")), *out(0xE9, ord("b")), "cpuid", output=said.append, debug=debugged.append)
    guest.exit()
    guest.processor.close()
    assert (b"".join(said), b"".join(debugged)) == (b"a", b"b")


def test_a_fetch_from_where_no_memory_is_finds_no_instruction(start):
    guest = start(("mov", EAX, 0x80_0000), ("jmp", EAX), exceptions=1 << Vector.UD)
    assert guest.exit() == UD_EXIT
    assert guest.save.rip == 0x80_0000


def test_a20_makes_addresses_wrap(start):
    lines = (("mov", EAX, Mem(None, 0x10_0000 + DATA)), ("mov", Mem(None, DATA + 8), EAX))
    off, on = (*out(0x92, 0), ("jmp", "off"), "off:"), (*out(0x92, 2), ("jmp", "on"), "on:")
    guest = start(*off, *lines, *on, ("mov", EBX, Mem(None, 0x10_0000 + DATA)), "cpuid")
    guest.memory.write(DATA, b"\x11\0\0\0")
    guest.memory.write(0x10_0000 + DATA, b"\x22\0\0\0")
    guest.exit()
    assert guest.u32(DATA + 8) == 0x11
    assert guest.gprs.rbx == 0x22


PORT = (("mov", EDX, 0x80), "at:", ("out", DX, AL), ("inc", ECX), ("mov", Mem(None, DATA), ECX), "end:", "cpuid")
IN = (("mov", EDX, 0x71), "at:", ("in_", AL, DX), ("inc", ECX), ("mov", Mem(None, DATA), ECX), "end:", "cpuid")


@pytest.mark.parametrize("lines", [PORT, IN], ids=["OUT", "IN"])
@pytest.mark.parametrize("mode", [PROTECTED_32, PAGED_32, LONG._replace(bits=32, code=(CODE_32, USER_CODE_32))])
def test_a_port_without_permission_is_a_fault_at_the_instruction(start, lines, mode):
    guest = start(*lines, mode=mode, cpl=3, exceptions=1 << Vector.GP)
    assert guest.exit() == GP_EXIT
    assert (guest.save.rip, guest.control.exit_info_1) == (guest.labels["at"], 0)
    assert (guest.gprs.rcx, guest.u32(DATA), guest.save.cpl) == (0, 0, 3)
    guest.save.rflags |= RFLAGS.IOPL  # the same instruction again, permitted
    assert guest.exit() == ExitCode.CPUID
    assert (guest.save.rip, guest.gprs.rcx, guest.u32(DATA)) == (guest.labels["end"], 1, 1)


def test_the_tss_permits_ports(start):
    guest = start(*PORT, cpl=3, exceptions=1 << Vector.GP)
    guest.save.tr.limit = 0x200
    guest.memory.write(TSS + 0x66, (0x68).to_bytes(2, "little"))
    guest.memory.write(TSS + 0x68, b"\xff" * 16 + b"\xfe\xff" + b"\xff" * 32)  # port 0x80 alone
    assert guest.exit() == ExitCode.CPUID
    guest.save.rip = guest.labels["at"]
    guest.gprs.rdx = 0x81
    assert guest.exit() == GP_EXIT


def test_syscall_enters_the_kernel_and_sysret_comes_back(start):
    guest = start("syscall", "after:", "cpuid", mode=LONG, cpl=3)
    guest.memory.write(HANDLER, b"\x48\x0f\x07")  # SYSRETQ
    save = guest.save
    save.efer |= EFER.SCE
    save.star, save.lstar, save.sfmask = 0x33 << 48 | CODE_64 << 32, HANDLER, RFLAGS.IF
    save.rflags |= RFLAGS.CF
    assert guest.exit() == ExitCode.CPUID
    assert (save.rip, save.cpl, save.cs.selector & 3) == (guest.labels["after"], 3, 3)
    assert guest.gprs.rcx == guest.labels["after"]
    assert guest.gprs.r11 & RFLAGS.CF


def test_syscall_lands_in_the_kernel(start):
    guest = start("syscall", "after:", "cpuid", mode=LONG, cpl=3)
    guest.memory.write(HANDLER, b"\x0f\xa2")
    save = guest.save
    save.efer |= EFER.SCE
    save.star, save.lstar = CODE_64 << 32, HANDLER
    assert guest.exit() == ExitCode.CPUID
    assert (save.rip, save.cpl, save.cs.selector, save.ss.selector) == (HANDLER, 0, CODE_64, CODE_64 + 8)
    assert save.rsp == STACK


@pytest.mark.parametrize("between", [(), ("nop",)])
def test_syscall_with_interrupts_just_open(start, between):
    """Unicorn looks for an interrupt before it stops at the instruction."""
    guest = start(*out(0x21, 0xFF), "sti", *between, "syscall", mode=LONG)  # without the timer's
    guest.memory.write(HANDLER, b"\x0f\xa2")
    guest.save.efer |= EFER.SCE
    guest.save.star, guest.save.lstar = CODE_64 << 32, HANDLER
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.rip == HANDLER


def test_syscall_that_is_off_is_no_instruction(start):
    guest = start("at:", "syscall", "cpuid", mode=LONG, cpl=3, exceptions=1 << Vector.UD)
    assert guest.exit() == UD_EXIT
    assert guest.save.rip == guest.labels["at"]


def test_sysenter_lands_in_the_kernel(start):
    guest = start("sysenter", "cpuid", cpl=3)
    guest.memory.write(HANDLER, b"\x0f\xa2")
    save = guest.save
    save.sysenter_cs, save.sysenter_esp, save.sysenter_eip = CODE_32, KERNEL_STACK - 64, HANDLER
    assert guest.exit() == ExitCode.CPUID
    assert (save.rip, save.rsp, save.cpl, save.cs.selector) == (HANDLER, KERNEL_STACK - 64, 0, CODE_32)


def test_sysenter_without_a_kernel_is_a_fault(start):
    guest = start("at:", "sysenter", "cpuid", cpl=3, exceptions=1 << Vector.GP)
    assert guest.exit() == GP_EXIT
    assert (guest.save.rip, guest.control.exit_info_1) == (guest.labels["at"], 0)


def test_memory_that_is_no_ram_reads_ones(start):
    guest = start(("mov", EAX, Mem(None, 0x7000_0000)), ("mov", Mem(None, 0x7000_0000), EBX), "cpuid")
    guest.exit()
    assert guest.save.rax == 0xFFFF_FFFF


def test_cpuid_of_the_processor_leaves_the_guest_alone(start):
    guest = start(("mov", EBX, 5), "end:", "cpuid")
    guest.gprs.rcx = 7
    eax, ebx, ecx, edx = guest.processor.cpuid(0, 0)
    assert b"".join(word.to_bytes(4, "little") for word in (ebx, edx, ecx)) == b"AuthenticAMD"
    assert eax > 0
    assert guest.exit() == ExitCode.CPUID
    assert (guest.gprs.rbx, guest.gprs.rcx) == (5, 7)


def test_exits_are_counted(start):
    guest = start("cpuid")
    for _ in range(3):
        guest.exit()
    assert guest.processor.statistics.exits == 3
    assert guest.processor.statistics.stopped > 0


def test_a_page_fault_of_the_guests_own_writes_cr2(start):
    guest = start(("mov", EAX, Mem(None, UNMAPPED + 4)), mode=PAGED_32)
    guest.exit()
    assert guest.save.cr2 == UNMAPPED + 4
    assert guest.save.cr0 & CR0.PG
