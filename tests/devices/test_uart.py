"""COM1, by the sequences of drivers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0x3F8, 0x3F9, 0x3FA, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF


@pytest.fixture
def com1(pc):
    """With interrupts: IRQ 4 is vector 0x24."""
    pc.init_pics(masks=(0xEF, 0xFF))
    return pc


def test_the_set_up_of_kvm_unit_tests_and_its_output(pc):
    pc.outb(LCR, pc.inb(LCR) | 0x80)
    pc.outb(DATA, 1)
    pc.outb(IER, 0)
    assert (pc.inb(DATA), pc.inb(IER)) == (1, 0)
    pc.outb(LCR, pc.inb(LCR) & ~0x80)
    pc.outb(IER, 0)
    pc.outb(LCR, 3)
    pc.outb(FCR, 0)
    pc.outb(MCR, 3)
    for letter in b"enabling apic\n":
        assert pc.inb(LSR) & 0x20
        pc.outb(DATA, letter)
    assert pc.written == b"enabling apic\n"


def test_linux_finds_a_16550a(pc):
    pc.outb(IER, 0)
    assert pc.inb(IER) & 0x0F == 0
    pc.outb(IER, 0x0F)
    assert pc.inb(IER) & 0x0F == 0x0F
    pc.outb(IER, 0)
    pc.outb(MCR, 0x10 | 0x0A)
    assert pc.inb(MSR) & 0xF0 == 0x90
    pc.outb(MCR, 0)
    pc.outb(LCR, 0xBF)
    pc.outb(IIR, 0)
    pc.outb(LCR, 0)
    pc.outb(FCR, 1)
    assert pc.inb(IIR) >> 6 == 3
    pc.outb(LCR, 0x80)
    assert pc.inb(IIR) != 0  # a 16650 has a register of zeros here
    pc.outb(LCR, 0)
    pc.outb(IER, 0x40)
    assert pc.inb(IER) == 0  # an XScale port keeps the bit


def test_without_a_fifo_the_chip_says_so_and_the_scratch_register_scratches(pc):
    assert pc.inb(IIR) == 0x01
    pc.outb(SCR, 0xA5)
    assert pc.inb(SCR) == 0xA5
    for register in (LSR, MSR):
        pc.outb(register, 0)
    assert pc.inb(LSR) == 0x60
    assert pc.inb(MSR) == 0xB0


def test_the_divisor_has_two_bytes_behind_dlab(pc):
    pc.outb(LCR, 0x83)
    pc.outb(DATA, 0x80)
    pc.outb(IER, 0x25)
    assert (pc.inb(DATA), pc.inb(IER), pc.inb(LCR)) == (0x80, 0x25, 0x83)
    assert pc.written == b""
    pc.outb(LCR, 0x03)
    assert pc.inb(IER) == 0


def test_loopback_connects_the_modem_lines(pc):
    lines = {0x01: 0x20, 0x02: 0x10, 0x04: 0x40, 0x08: 0x80}
    for output, value in lines.items():
        pc.outb(MCR, 0x10 | output)
        assert pc.inb(MSR) == value
    assert pc.inb(MCR) == 0x18


def test_loopback_sends_to_itself_and_keeps_the_other_side_out(pc):
    pc.outb(MCR, 0x10)
    pc.outb(DATA, 0x42)
    pc.machine.receive(b"x")
    assert pc.inb(LSR) & 1
    assert pc.inb(DATA) == 0x42
    assert not pc.inb(LSR) & 1
    pc.outb(MCR, 0)
    assert pc.inb(DATA) == ord("x")
    assert pc.written == b""


@pytest.mark.parametrize(("fcr", "room", "kept"), [(0, 1, [99]), (1, 16, list(range(16)))])
def test_an_overrun_in_loopback_is_reported_once(com1, fcr, room, kept):
    com1.outb(FCR, fcr)
    com1.outb(MCR, 0x10)
    com1.outb(IER, 4)
    for value in range(room):
        com1.outb(DATA, value)
    assert com1.interrupts() == []
    com1.outb(DATA, 99)
    assert com1.interrupts() == [0x24]
    assert com1.inb(IIR) & 0x0F == 0x06
    assert com1.inb(LSR) & 2
    assert not com1.inb(LSR) & 2
    assert com1.inb(IIR) & 0x0F == 0x01
    assert [com1.inb(DATA) for _ in range(room)] == kept


def test_received_bytes_wait_until_there_is_room(pc):
    pc.outb(FCR, 1)
    text = bytes(range(40))
    pc.machine.receive(text[:30])
    pc.machine.receive(text[30:])
    got = bytearray()
    while pc.inb(LSR) & 1:
        got.append(pc.inb(DATA))
    assert got == text


def test_reading_where_nothing_is(pc):
    pc.machine.receive(b"a")
    assert (pc.inb(DATA), pc.inb(DATA)) == (ord("a"), ord("a"))
    pc.outb(FCR, 1)
    assert pc.inb(DATA) == 0


@pytest.mark.parametrize(("trigger", "level"), [(0x00, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_below_the_trigger_level_it_is_a_timeout(com1, trigger, level):
    com1.outb(FCR, 1 | trigger)
    com1.outb(IER, 1)
    if level > 1:
        com1.machine.receive(bytes(level - 1))
        assert com1.inb(IIR) == 0xCC
        com1.machine.receive(b"\0")
    else:
        com1.machine.receive(b"\0")
    assert com1.inb(IIR) == 0xC4
    assert com1.interrupts() == [0x24]
    for _ in range(level):
        com1.inb(DATA)
    assert com1.inb(IIR) == 0xC1


def test_the_transmitter_interrupts_when_enabled_and_after_each_byte(com1):
    com1.outb(IER, 2)
    assert com1.interrupts() == [0x24]
    assert com1.inb(IIR) & 0x0F == 0x02
    assert com1.inb(IIR) & 0x0F == 0x01  # reading it was the answer
    for letter in b"abc":
        com1.outb(DATA, letter)
        assert com1.interrupts() == [0x24]
    com1.outb(IER, 2)
    assert com1.inb(IIR) & 0x0F == 0x02  # the third byte's
    com1.outb(IER, 2)
    assert com1.inb(IIR) & 0x0F == 0x01  # nothing changed, nothing new
    com1.outb(IER, 0)
    com1.outb(DATA, ord("d"))
    assert com1.interrupts() == []
    assert com1.written == b"abcd"


def test_an_echoing_interrupt_handler(com1):
    com1.outb(FCR, 0xC7)
    com1.outb(IER, 1)
    com1.machine.receive(b"hello")
    while com1.interrupts():
        while com1.inb(LSR) & 1:
            com1.outb(DATA, com1.inb(DATA))
    assert com1.written == b"hello"


def test_the_fifo_can_be_cleared(pc):
    pc.outb(FCR, 1)
    pc.machine.receive(b"abc")
    pc.outb(FCR, 3)
    assert not pc.inb(LSR) & 1
    pc.outb(IER, 2)
    pc.inb(IIR)
    pc.outb(FCR, 3)
    assert pc.inb(IIR) & 0x0F == 0x01
    pc.outb(FCR, 5)
    assert pc.inb(IIR) & 0x0F == 0x02


def test_switching_the_fifo_empties_it(pc):
    pc.outb(FCR, 1)
    pc.machine.receive(b"abc")
    pc.outb(FCR, 0)
    assert not pc.inb(LSR) & 1


def test_a_reset_keeps_what_waits_outside(com1):
    com1.outb(IER, 1)
    com1.outb(SCR, 7)
    com1.machine.receive(b"abc")
    com1.machine.reset()
    assert com1.machine.cpus[0].pending() is None
    assert (com1.inb(SCR), com1.inb(IER)) == (0, 0)
    assert com1.inb(DATA) == ord("b")


@given(st.binary(max_size=80), st.sampled_from([0, 1]), st.integers(1, 7))
def test_every_byte_arrives_once_and_in_order(build, data, fcr, chunk):
    pc = build()
    pc.outb(FCR, fcr)
    got = bytearray()
    for start in range(0, len(data), chunk):
        pc.machine.receive(data[start : start + chunk])
        if pc.inb(LSR) & 1:
            got.append(pc.inb(DATA))
    while pc.inb(LSR) & 1:
        got.append(pc.inb(DATA))
    assert got == data
