"""Breakpoints and watchpoints on a real QEMU."""

import contextlib
import os
import shutil
import signal
import struct
import threading
import time

import pytest

from trapline.arch import fxsave, reset
from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode, set_intercept
from trapline.arch.registers import CR0, CR4, DR6, DR7, EFER, RFLAGS
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.arch.vmcb import IntCtl
from trapline.errors import ProcessorLost
from trapline.machine.linear import code_address
from trapline.machine.processor import Outcome, Watchpoint
from trapline.processors.qemu.launch import open_qemu
from trapline.testing.conformance.modes import (
    CODE_32,
    DATA,
    EVERYWHERE,
    IDT,
    KERNEL_STACK,
    LONG,
    PROTECTED_32,
    REAL,
    VIRTUAL,
    enter,
    handler,
    image,
    where,
)

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

CODE = 0x4000
BASE_OF_CS = 0x120
LIMIT = 120.0
INTERRUPT = 0x40
NOP, CPUID = b"\x90", b"\x0f\xa2"
DB_EXIT = EXCEPTION_EXITS.start + Vector.DB


def apic(register, value):
    """MOV of a value to a register of the local APIC (APM 16.3), in 32-bit code."""
    return b"\xc7\x05" + struct.pack("<II", 0xFEE0_0000 + register, value)


class Guest:
    """A piece of machine code in some mode; CPUID ends it."""

    def __init__(self, processor):
        self.processor, self.vmcb, self.memory = processor, processor.vmcb, processor.memory
        self.save, self.control = self.vmcb.save, self.vmcb.control
        self.at = self.next = CODE

    def start(self, code, mode=PROTECTED_32, cpl=0, *, base=0, exceptions=FORCEABLE):
        """Make code the next thing to run; each has a place of its own, as TCG keeps what it has translated."""
        self.at, self.next = self.next, self.next + len(code) + 0x1F & ~0xF
        assert self.next <= DATA
        self.memory.write(0, image(mode))
        self.memory.write(self.at, code)
        enter(self.save, mode, cpl, self.at - base)
        self.save.cs.base += base
        self.intercept(exceptions, ExitCode.CPUID)
        self.processor.set_breakpoints(frozenset())
        self.processor.set_watchpoints(())

    def intercept(self, exceptions, *codes):
        control = self.control
        control.event_inj = control.int_ctl = 0
        control.intercept_exceptions = exceptions
        control.intercept_misc1 = control.intercept_misc2 = 0
        for code in (ExitCode.SHUTDOWN, ExitCode.VMRUN, *codes):
            set_intercept(control, code)
        self.processor.intercepts_changed(0)

    def stop_at(self, *offsets):
        self.processor.set_breakpoints(frozenset(self.at + offset for offset in offsets))

    def run(self):
        return self.processor.run(time.monotonic() + LIMIT)

    def ends(self):
        """Run to the end of the code."""
        outcome = self.run()
        assert (outcome, self.control.exit_code) == (Outcome.VMEXIT, ExitCode.CPUID), self.save.rip

    @property
    def offset(self):
        return code_address(self.save) - self.at


def powered_on(stack):
    processor = stack.enter_context(open_qemu(guest=["-nodefaults"], options=["-cpu", "max"], memory=16 << 20))
    assert processor.run(time.monotonic() + LIMIT) is Outcome.RESET
    processor._machine.power_on._in_firmware = False  # the BIOS is not wanted
    return processor


@pytest.fixture(scope="module")
def guest():
    with contextlib.ExitStack() as stack:
        guest = Guest(powered_on(stack))
        # The local APIC as a BIOS leaves it: on, and passing NMIs, which kicks are.
        guest.start(apic(0xF0, 0x1FF) + apic(0x360, 0x400) + CPUID)
        guest.ends()
        yield guest


def loop(mode):
    """INC, NOP, JMP back: offset of the NOP, and the code."""
    increment = b"\xff\xc0" if mode.bits == 64 else b"\x40"
    return len(increment), increment + NOP + b"\xeb" + bytes((0x100 - len(increment) - 3,))


PLACES = [
    pytest.param(mode, cpl, base, id=f"{where(mode, cpl)}{', based' if base else ''}")
    for mode, cpl in EVERYWHERE
    for base in (0, BASE_OF_CS)
    if not base or mode.bits != 64
]


def hit_often(guest, mode, cpl, base, count):
    nop, code = loop(mode)
    guest.start(code, mode, cpl, base=base)
    for number in range(count):
        for offset in (nop, nop + 1):
            guest.stop_at(offset)
            assert guest.run() is Outcome.BREAKPOINT
            assert (guest.offset, guest.save.rax) == (offset, number + 1)
            assert guest.save.rip == guest.at + offset - base
    assert guest.memory.read(guest.at, len(code)) == code


@pytest.mark.parametrize("bits", [CR0.EM, CR0.TS])
def test_sse_registers_are_read_whatever_the_guest_has_in_cr0(guest, bits):
    """TCG's monitor has the guest's CR0 after an exit of a guest with EFER.LME and without CR4.PAE."""
    guest.start(CPUID + CPUID, PROTECTED_32)
    guest.save.cr0, guest.save.cr4 = guest.save.cr0 & ~CR0.PG | bits, 0
    guest.save.efer |= EFER.LME
    guest.ends()
    image = guest.processor.read_fpu()
    assert fxsave.read(image, "fcw") == 0x37F
    guest.processor.write_fpu(fxsave.write(image, "fcw", 0x37E))
    assert fxsave.read(guest.processor.read_fpu(), "fcw") == 0x37E
    guest.processor.write_fpu(image)


@pytest.mark.parametrize(("mode", "cpl", "base"), PLACES)
def test_a_breakpoint_stops_before_its_instruction(guest, mode, cpl, base):
    hit_often(guest, mode, cpl, base, 3)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("mode", "cpl", "base"), [(REAL, 0, BASE_OF_CS), (PROTECTED_32, 0, 0), (VIRTUAL, 3, 0), (LONG, 3, 0)]
)
def test_a_thousand_hits(guest, mode, cpl, base):
    hit_often(guest, mode, cpl, base, 500)


def test_the_first_instruction_can_be_one(guest):
    guest.start(NOP + NOP + CPUID)
    guest.stop_at(0)
    for _ in range(3):
        assert guest.run() is Outcome.BREAKPOINT
        assert guest.offset == 0
    guest.stop_at(1)
    assert guest.run() is Outcome.BREAKPOINT
    guest.stop_at()
    guest.ends()


def test_an_event_is_delivered_before(guest):
    guest.start(NOP + CPUID)
    guest.processor.set_breakpoints(frozenset((guest.at, handler(Vector.UD))))
    guest.control.event_inj = encode(Event(Vector.UD, EventType.EXCEPTION))
    assert guest.run() is Outcome.BREAKPOINT
    assert guest.save.rip == handler(Vector.UD)
    assert struct.unpack("<I", guest.memory.read(guest.save.rsp, 4))[0] == guest.at


def test_a_page_that_is_not_there_has_no_breakpoint(guest):
    guest.start(b"\xb8\x00\x00\x01\x00\xff\xe0", LONG)  # JMP 0x10000, which is not mapped
    guest.processor.set_breakpoints(frozenset((0x1_0000,)))
    assert guest.run() is Outcome.BREAKPOINT  # the fault, which is intercepted, is told afterwards
    assert guest.save.rip == 0x1_0000
    guest.stop_at()
    assert guest.run() is Outcome.VMEXIT
    assert guest.control.exit_code == EXCEPTION_EXITS.start + Vector.PF
    assert guest.control.exit_info_2 == 0x1_0000


def test_the_guest_sees_nothing(guest):
    instructions = (
        b"\x9c",  # PUSHF
        b"\x5b",  # POP EBX
        b"\x0f\x21\xf1",  # MOV ECX, DR6
        b"\x0f\x21\xfa",  # MOV EDX, DR7
        b"\xa1" + struct.pack("<I", guest.next),  # MOV EAX, [the first]
        b"\x0f\x21\xc6",  # MOV ESI, DR0
        NOP,
    )
    code = b"".join(instructions)
    guest.start(code + CPUID)
    offsets = [sum(map(len, instructions[:number])) for number in range(len(instructions))]
    for offset in offsets:
        guest.stop_at(*(other for other in offsets if other >= offset))
        assert guest.run() is Outcome.BREAKPOINT
        assert guest.offset == offset
    guest.stop_at()
    guest.ends()
    gprs = guest.processor.gprs
    assert gprs.rbx == RFLAGS.ALWAYS_ONE
    assert (gprs.rcx, gprs.rdx, gprs.rsi) == (DR6.FIXED, DR7.FIXED, 0)
    assert guest.save.rax == int.from_bytes(code[:4], "little")
    assert (guest.save.dr6, guest.save.dr7) == (DR6.FIXED, DR7.FIXED)


def test_the_guests_own_debug_registers_work(guest):
    """DR0: the second NOP; DR1: four bytes that are written. Breakpoints of ours all around."""
    set_up = b"\xb8" + struct.pack("<I", guest.next + 29) + b"\x0f\x23\xc0"  # MOV EAX, ...; MOV DR0, EAX
    set_up += b"\xb8" + struct.pack("<I", DATA) + b"\x0f\x23\xc8"  # MOV DR1, EAX
    set_up += b"\xb8" + struct.pack("<I", DR7.FIXED | 0b0101 | 0xD << 20) + b"\x0f\x23\xf8"  # MOV DR7, EAX
    store = b"\xa3" + struct.pack("<I", DATA)  # MOV [DATA], EAX
    code = set_up + store[:0] + NOP * 5 + NOP + store + NOP + CPUID
    assert len(set_up) == 24
    guest.start(code)
    guest.stop_at(24, 28, 35)
    guest.processor.set_watchpoints((Watchpoint(DATA + 8, 4, False),))
    assert guest.run() is Outcome.BREAKPOINT
    guest.stop_at(28, 35)
    assert guest.run() is Outcome.BREAKPOINT
    guest.stop_at(35)
    assert guest.run() is Outcome.VMEXIT
    assert (guest.control.exit_code, guest.offset, guest.save.dr6 & 0xF) == (DB_EXIT, 29, 1)
    guest.save.rflags |= RFLAGS.RF
    guest.save.dr7 &= ~1
    guest.save.dr6 = DR6.FIXED
    assert guest.run() is Outcome.VMEXIT
    assert (guest.control.exit_code, guest.offset, guest.save.dr6 & 0xF) == (DB_EXIT, 35, 2)
    assert guest.run() is Outcome.BREAKPOINT
    guest.stop_at()
    guest.ends()


def test_in_the_handler_of_an_nmi(guest):
    """NMIs are blocked there."""
    send = apic(0x300, 0x400)  # an NMI for the APIC with the id 0
    nmi = 0x40
    code = (send + NOP * 4) * 2 + CPUID
    guest.start(code.ljust(nmi, NOP) + NOP + NOP + b"\xcf")  # NOP, NOP, IRET
    gate = struct.pack("<HHBBH", guest.at + nmi, CODE_32, 0, 0x8E, 0)
    guest.memory.write(IDT + 8 * Vector.NMI, gate)
    for _ in range(2):
        guest.stop_at(nmi + 1)
        assert guest.run() is Outcome.BREAKPOINT
        assert guest.offset == nmi + 1
        guest.stop_at(nmi + 2)
        assert guest.run() is Outcome.BREAKPOINT
    guest.stop_at()
    guest.ends()
    assert guest.offset == 2 * (len(send) + 4)


def accessing(size, *, store):
    """An instruction of 32-bit code that accesses DATA + 16."""
    direct = b"\x05" + struct.pack("<I", DATA + 16)
    return OPCODES[size][store] + direct


OPCODES = {
    1: (b"\x8a", b"\x88"),
    2: (b"\x66\x8b", b"\x66\x89"),
    4: (b"\x8b", b"\x89"),
    8: (b"\x0f\x6f", b"\x0f\x7f"),  # MOVQ
    16: (b"\x0f\x10", b"\x0f\x11"),  # MOVUPS
}
"""Loads and stores by their size."""
ACCESSES = [(size, store) for size in (1, 2, 4, 8, 16) for store in (False, True)]


@pytest.mark.parametrize(("size", "store"), ACCESSES)
@pytest.mark.parametrize("reads", [False, True])
def test_an_access_to_watched_memory(guest, size, store, reads):
    code = accessing(size, store=store)
    start = DATA + 16
    inside = [(start, 1), (start + size - 1, 1), (start - 3, 4), (start + size - 1, 8), (start - 8, 32)]
    outside = [(start - 1, 1), (start + size, 16)]
    for address, length in inside + outside:
        guest.start(code + CPUID)
        guest.save.cr4 |= CR4.OSFXSR
        guest.processor.set_watchpoints((Watchpoint(address, length, reads),))
        if (address, length) in inside and (store or reads):
            assert guest.run() is Outcome.WATCHPOINT
            assert (guest.offset, guest.processor.hit) == (len(code), Watchpoint(address, length, reads))
        guest.ends()


def test_which_watchpoint_it_was(guest):
    store = b"\xa3" + struct.pack("<I", DATA)
    guest.start(store + store + CPUID)
    wide, narrow, reads = Watchpoint(DATA - 8, 16, False), Watchpoint(DATA + 2, 1, False), Watchpoint(DATA, 4, True)
    elsewhere = Watchpoint(DATA + 64, 4, False)
    for watched in ((elsewhere, narrow, wide, reads), (reads, wide, narrow)):
        guest.processor.set_watchpoints(watched)
        assert guest.run() is Outcome.WATCHPOINT
        assert guest.processor.hit == watched[0 if watched[0] is reads else 1]


def test_one_iteration_of_a_repeated_instruction_at_a_time(guest):
    guest.start(b"\xf3\xaa" + CPUID)  # REP STOSB
    guest.processor.gprs.rcx, guest.processor.gprs.rdi = 8, DATA
    guest.processor.set_watchpoints((Watchpoint(DATA + 3, 2, False),))
    assert guest.run() is Outcome.WATCHPOINT
    if guest.offset:  # from QEMU 10 on an instruction under REP is one step: translate.c, do_gen_rep
        assert (guest.offset, guest.processor.gprs.rcx) == (2, 0)
    else:
        assert guest.processor.gprs.rcx == 4
        assert guest.run() is Outcome.WATCHPOINT
        assert (guest.offset, guest.processor.gprs.rcx) == (0, 3)
    guest.ends()
    assert guest.processor.gprs.rcx == 0


def test_a_watchpoint_and_the_guests_single_step(guest):
    """The access is told first; the trap comes with the next run."""
    guest.start(b"\xa3" + struct.pack("<I", DATA) + NOP + CPUID)
    guest.processor.set_watchpoints((Watchpoint(DATA, 4, False),))
    guest.save.rflags |= RFLAGS.TF
    assert guest.run() is Outcome.WATCHPOINT
    assert guest.offset == 5
    assert guest.run() is Outcome.VMEXIT
    assert (guest.control.exit_code, guest.offset) == (DB_EXIT, 5)
    guest.save.rflags &= ~RFLAGS.TF
    guest.ends()


END_OF_INTERRUPT = apic(0xB0, 0)
TO_SELF = apic(0x300, 1 << 18 | INTERRUPT)
STI = b"\xfb"
INTERRUPTED = END_OF_INTERRUPT + TO_SELF + STI
FRAME = Watchpoint(KERNEL_STACK - 12, 12, True)


@pytest.mark.parametrize(
    "watched", [FRAME, Watchpoint(IDT + 8 * INTERRUPT, 8, True), Watchpoint(KERNEL_STACK - 1, 1, False)]
)
def test_the_delivery_of_an_interrupt_is_no_access_and_no_loss(guest, watched):
    for _ in range(3):
        guest.start(INTERRUPTED + NOP * 8 + CPUID)
        guest.processor.set_watchpoints((watched,))
        guest.ends()
        assert guest.save.rip == handler(INTERRUPT)
        eip, cs, eflags = struct.unpack("<3I", guest.memory.read(guest.save.rsp, 12))
        assert guest.at + len(INTERRUPTED) < eip < guest.at + len(INTERRUPTED + NOP * 8)
        assert (cs, eflags & RFLAGS.IF) == (CODE_32, RFLAGS.IF)
        assert guest.save.idtr.limit == 0xFFF


@pytest.mark.parametrize("exceptions", [0, 1 << Vector.UD, FORCEABLE])
def test_the_delivery_of_an_exception_is_no_access(guest, exceptions):
    guest.start(b"\x0f\x0b" + CPUID, exceptions=exceptions)  # UD2
    guest.processor.set_watchpoints((FRAME,))
    if exceptions:
        assert guest.run() is Outcome.VMEXIT
        assert guest.control.exit_code == EXCEPTION_EXITS.start + Vector.UD
        guest.control.event_inj = encode(Event(Vector.UD, EventType.EXCEPTION))
    guest.ends()
    assert guest.save.rip == handler(Vector.UD)
    assert struct.unpack("<2I", guest.memory.read(guest.save.rsp, 8)) == (guest.at, CODE_32)


def test_the_delivery_of_int_n_is_no_access(guest):
    guest.start(b"\xcd\x80" + CPUID, exceptions=0)
    guest.processor.set_watchpoints((FRAME,))
    guest.ends()
    assert guest.save.rip == handler(0x80)
    assert struct.unpack("<2I", guest.memory.read(guest.save.rsp, 8)) == (guest.at + 2, CODE_32)


def test_an_interrupt_in_real_mode(guest):
    """What needs the APIC is done before, in a mode that reaches it."""
    guest.start(END_OF_INTERRUPT + TO_SELF + CPUID)
    guest.ends()
    save = guest.save
    guest.start(STI + NOP * 4 + CPUID, REAL)
    guest.processor.set_watchpoints((Watchpoint(KERNEL_STACK - 6, 2, False),))
    guest.ends()
    assert save.rip == handler(INTERRUPT)
    assert struct.unpack("<3H", guest.memory.read(save.rsp, 6))[1] == 0


def test_interrupts_wait_while_they_are_masked_for_the_guest(guest):
    """The single steps of the hypervisor depend on it (APM 15.21.1)."""
    guest.start(INTERRUPTED + NOP * 8 + CPUID)
    guest.control.int_ctl = IntCtl.V_INTR_MASKING
    guest.stop_at(len(INTERRUPTED) + 4)
    assert guest.run() is Outcome.BREAKPOINT
    assert guest.save.rflags & RFLAGS.IF
    guest.stop_at()
    guest.control.int_ctl = 0
    guest.ends()
    assert guest.save.rip == handler(INTERRUPT)
    assert struct.unpack("<I", guest.memory.read(guest.save.rsp, 4))[0] == guest.at + len(INTERRUPTED) + 4


def test_kicks_and_deadlines_while_breakpoints_are_set(guest):
    guest.start(b"\xeb\xfe" + CPUID)
    guest.stop_at(2)
    assert guest.processor.run(time.monotonic() + 0.05) is Outcome.DEADLINE
    threading.Timer(0.05, guest.processor.kick).start()
    assert guest.run() is Outcome.KICKED
    guest.save.rip += 2
    assert guest.run() is Outcome.BREAKPOINT
    guest.processor.kick()
    assert guest.run() is Outcome.KICKED
    guest.stop_at()
    guest.ends()


def test_a_hit_that_nobody_waited_for(guest):
    """The guest runs on after a deadline, and its hit is told by the next run."""
    code = b"\xff\x05" + struct.pack("<I", DATA) + b"\x80\x3d" + struct.pack("<IB", DATA + 8, 0) + b"\x74\xf1"
    guest.start(code + NOP + CPUID)  # INC [DATA]; CMP [DATA + 8], 0; JZ back
    guest.stop_at(len(code))
    assert guest.processor.run(time.monotonic() + 0.05) is Outcome.DEADLINE
    guest.memory.write(DATA + 8, b"\1")
    time.sleep(0.2)
    assert guest.run() is Outcome.BREAKPOINT
    assert guest.offset == len(code)
    guest.stop_at()
    guest.ends()


def test_a_reset_keeps_them_and_our_firmware_does_not_count():
    """The firmware's entry runs at the reset vector, and stores where SMM enters."""
    with contextlib.ExitStack() as stack:
        guest = Guest(powered_on(stack))
        guest.start(NOP + NOP + CPUID)
        processor = guest.processor
        processor.set_breakpoints(frozenset((0xFFFF_FFF0, guest.at)))
        processor.set_watchpoints((Watchpoint(0x3_8000, 8, True), Watchpoint(DATA, 4, False)))
        assert guest.run() is Outcome.BREAKPOINT
        processor.shutdown()
        assert guest.run() is Outcome.RESET
        processor._machine.power_on._in_firmware = False
        guest.memory.write(guest.at, NOP + b"\xa2" + struct.pack("<H", DATA))  # the same in real mode: MOV [DATA], AL
        enter(guest.save, REAL, 0, guest.at)
        guest.intercept(FORCEABLE)
        assert guest.run() is Outcome.BREAKPOINT
        processor.set_breakpoints(frozenset())
        assert guest.run() is Outcome.WATCHPOINT
        assert (guest.offset, processor.hit) == (4, Watchpoint(DATA, 4, False))


def test_code_in_read_only_memory():
    """SeaBIOS makes its segment read-only before it boots by INT 19h, whose place is fixed."""
    with open_qemu(guest=["-nodefaults"], memory=32 << 20) as processor:
        assert processor.run(time.monotonic() + LIMIT) is Outcome.RESET
        guest, place = Guest(processor), 0xF_E6F2
        byte = guest.memory.read(place, 1)
        reset.reset(processor.vmcb, processor.gprs, signature=processor.signature)
        guest.intercept(0)
        processor.set_breakpoints(frozenset((place,)))
        assert guest.run() is Outcome.BREAKPOINT
        assert (code_address(guest.save), guest.memory.read(place, 1)) == (place, byte)
        processor.set_breakpoints(frozenset())
        assert processor.run(time.monotonic() + 1) is Outcome.DEADLINE  # it waits for something to boot from


@pytest.mark.parametrize("paused", [False, True])
def test_a_qemu_that_is_killed_is_lost(paused):
    with contextlib.ExitStack() as stack:
        guest = Guest(powered_on(stack))
        guest.start(b"\xff\x05" + struct.pack("<I", DATA) + b"\x75\xf8" + NOP)  # INC [DATA]; JNZ back
        guest.stop_at(8)
        assert guest.processor.run(time.monotonic() + 0.05) is Outcome.DEADLINE
        process = guest.processor._machine.qemu.process
        if paused:
            guest.memory.write(DATA, b"\xff" * 4)
            time.sleep(0.2)
        threading.Timer(0 if paused else 0.2, os.kill, (process.pid, signal.SIGKILL)).start()
        if paused:
            time.sleep(0.2)
        with pytest.raises(ProcessorLost, match=r"killed by SIGKILL|ended while"):
            guest.run()
