"""The interrupt controllers, by themselves and by the sequences of kernels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.devices.pic import PicPair


class Pics:
    """A pair and its output, set up as Linux does it."""

    def __init__(self, icw4=0x01, master_icw4=None):
        self.levels = []
        self.pair = PicPair(self.levels.append)
        for chip, base, wiring, last in ((0x20, 0x30, 4, master_icw4 or icw4), (0xA0, 0x38, 2, icw4)):
            for port, value in ((chip, 0x11), (chip + 1, base), (chip + 1, wiring), (chip + 1, last), (chip + 1, 0)):
                self.out(port, value)

    def out(self, port, value):
        self.pair.write(port, 1, value)

    def read(self, port):
        return self.pair.read(port, 1)

    def pulse(self, *irqs):
        for irq in irqs:
            self.pair.set_line(irq, True)
            self.pair.set_line(irq, False)

    @property
    def output(self):
        return bool(self.levels) and self.levels[-1]

    def take(self):
        """Return the IRQ of the next INTA, None without an interrupt."""
        if not self.output:
            return None
        announced = self.pair.vector()
        assert self.pair.acknowledge() == announced
        return announced - 0x30

    def isr(self, chip=0x20):
        self.out(chip, 0x0B)
        return self.read(chip)

    def irr(self, chip=0x20):
        self.out(chip, 0x0A)
        return self.read(chip)


@pytest.fixture
def pics():
    return Pics()


def test_firmware_leaves_the_vectors_of_the_bios(pc):
    assert pc.inb(0x21) == 0xB8
    assert pc.inb(0xA1) == 0x8E
    pc.wait(60_000_000)
    assert pc.machine.cpus[0].pending() == 8


def test_priorities_and_the_end_of_interrupt(pics):
    pics.pulse(5, 3, 4)
    assert pics.irr() == 0x38
    assert pics.take() == 3
    assert pics.isr() == 0x08
    assert pics.irr() == 0x30
    assert pics.take() is None  # what is lower waits
    pics.pulse(1)
    assert pics.take() == 1  # what is higher does not
    pics.out(0x20, 0x20)
    assert pics.isr() == 0x08
    pics.out(0x20, 0x20)
    assert pics.take() == 4
    pics.out(0x20, 0x64)  # specific
    assert pics.take() == 5
    pics.out(0x20, 0x63)  # of another line: no effect
    assert pics.isr() == 0x20
    pics.out(0x20, 0x65)
    assert pics.isr() == 0
    pics.out(0x20, 0x20)  # of nothing
    assert pics.take() is None


def test_the_slave_comes_through_line_2(pics):
    pics.pulse(12, 8, 3)
    assert pics.take() == 8
    assert (pics.isr(), pics.isr(0xA0)) == (0x04, 0x01)
    assert pics.take() is None
    pics.out(0xA0, 0x20)
    assert pics.take() is None  # the master still serves its line 2
    pics.out(0x20, 0x20)
    assert pics.take() == 12
    pics.out(0x20, 0x20)
    pics.out(0xA0, 0x20)
    assert pics.take() == 3


def test_irq_2_has_no_pin(pics):
    pics.pulse(2)
    assert pics.take() is None
    assert pics.irr() == 0


def test_a_mask_holds_back_and_forgets_nothing(pics):
    pics.out(0x21, 0xFF)
    assert pics.read(0x21) == 0xFF
    pics.pulse(0)
    assert not pics.output
    assert pics.pair.masked(0)
    pics.out(0x21, 0xFE)
    assert pics.take() == 0
    assert not pics.pair.masked(0)
    assert pics.pair.masked(1)


def test_spurious_interrupts_have_vector_7_and_no_service(pics):
    assert pics.pair.acknowledge() == 0x37
    assert pics.isr() == 0
    pics.pulse(9)
    pics.pair.set_line(4, True)
    pics.out(0xA1, 0xFF)  # masked between request and INTA: the slave's output falls, the master's latch stays
    assert pics.take() == 15
    assert (pics.isr(), pics.isr(0xA0)) == (0x04, 0x00)


def test_an_edge_counts_once_and_a_level_as_long_as_it_stays(pics):
    pics.pair.set_line(5, True)
    pics.pair.set_line(5, True)
    assert pics.take() == 5
    pics.out(0x20, 0x20)
    assert pics.take() is None
    pics.pair.write_elcr(0x4D0, 1, 0xFF)
    pics.pair.write_elcr(0x4D1, 1, 0xFF)
    assert (pics.pair.read_elcr(0x4D0, 1), pics.pair.read_elcr(0x4D1, 1)) == (0xF8, 0xDE)
    for _ in range(3):
        pics.pair.set_line(5, True)
        assert pics.take() == 5
        pics.out(0x20, 0x20)
        assert pics.output
    pics.pair.set_line(5, False)
    assert not pics.output
    for _ in range(2):
        pics.pair.set_line(10, True)
        assert pics.take() == 10
        pics.out(0xA0, 0x20)
        pics.out(0x20, 0x20)


def test_automatic_end_and_rotation():
    pics = Pics(icw4=0x03)
    pics.pulse(0, 1, 9, 10)
    assert [pics.take() for _ in range(5)] == [0, 1, 9, 10, None]
    assert pics.isr() == 0
    pics.out(0x20, 0x80)  # rotate in automatic end mode
    pics.pulse(0, 1)
    assert pics.take() == 0
    pics.pulse(0)
    assert [pics.take(), pics.take()] == [1, 0]
    pics.out(0x20, 0x00)  # and no longer: line 1 stays the highest
    pics.pulse(0, 1)
    assert [pics.take(), pics.take()] == [1, 0]
    pics.pulse(0, 1)
    assert [pics.take(), pics.take()] == [1, 0]


def test_rotation_by_command(pics):
    pics.out(0x20, 0xC3)  # 3 is the lowest
    pics.pulse(3, 4, 0)
    assert pics.take() == 4
    pics.out(0x20, 0xA0)  # end and rotate: 4 is the lowest
    assert pics.take() == 0
    pics.out(0x20, 0xE0)  # end of 0 and rotate: 0 is the lowest
    pics.pulse(0)
    assert pics.take() == 3
    pics.out(0x20, 0x63)
    assert pics.take() == 0
    pics.out(0x20, 0x40)  # no operation
    assert pics.isr() == 0x01


def test_rotating_end_of_nothing(pics):
    pics.out(0x20, 0xA0)
    pics.pulse(1, 0)
    assert pics.take() == 0


def test_special_mask_mode_lets_lower_lines_in(pics):
    pics.pulse(1, 6)
    assert pics.take() == 1
    pics.out(0x21, 0x02)
    assert pics.take() is None
    pics.out(0x20, 0x68)
    assert pics.take() == 6
    pics.out(0x20, 0x48)
    pics.pulse(7)
    assert pics.take() is None


def test_special_fully_nested_mode_lets_the_slave_interrupt_itself():
    pics = Pics(master_icw4=0x11)
    pics.pulse(12)
    assert pics.take() == 12
    pics.pulse(8)
    assert pics.take() == 8
    plain = Pics()
    plain.pulse(12)
    assert plain.take() == 12
    plain.pulse(8)
    assert plain.take() is None


def test_polling_instead_of_inta(pics):
    pics.pulse(6)
    pics.out(0x20, 0x0C)
    assert pics.read(0x20) == 0x86
    assert pics.isr() == 0x40
    pics.out(0x20, 0x20)
    pics.out(0x20, 0x0C)
    assert pics.read(0x20) == 0x00
    pics.pulse(9)
    pics.out(0xA0, 0x0C)
    assert pics.read(0xA0) == 0x81
    assert pics.isr(0xA0) == 0x02


@pytest.mark.parametrize(
    ("icw1", "words"), [(0x10, 2), (0x11, 3), (0x12, 1), (0x13, 2)], ids=["no ICW4", "all", "alone", "alone, ICW4"]
)
def test_icw1_says_how_many_words_follow(pics, icw1, words):
    pics.pulse(1)
    assert pics.take() == 1
    pics.out(0x20, icw1)
    for _ in range(words):
        pics.out(0x21, 0x41)
    assert pics.isr() == 0
    assert pics.read(0x21) == 0
    pics.out(0x21, 0x55)
    assert pics.read(0x21) == 0x55


def test_initialization_forgets_edges_and_keeps_levels(pics):
    pics.pair.write_elcr(0x4D0, 1, 0x20)
    pics.pair.set_line(5, True)
    pics.pulse(6)
    pics.out(0x20, 0x11)
    assert pics.irr() == 0x20


operations = st.lists(
    st.one_of(
        st.tuples(st.just("line"), st.sampled_from([i for i in range(16) if i != 2]), st.booleans()),
        st.tuples(st.just("mask"), st.sampled_from([0x21, 0xA1]), st.integers(0, 255)),
        st.tuples(st.just("eoi"), st.sampled_from([0x20, 0xA0]), st.sampled_from([0x20, 0x61, 0xA0, 0xC4, 0xE3])),
        st.tuples(st.just("ack"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(operations)
def test_what_is_taken_was_requested_unmasked_and_above_what_is_served(operations):
    pics = Pics()
    rotated = False
    for kind, where, value in operations:
        if kind == "line":
            pics.pair.set_line(where, value)
        elif kind in ("mask", "eoi"):
            rotated |= value >= 0xA0 and kind == "eoi"
            pics.out(where, value)
        else:
            before = {chip: (pics.irr(chip), pics.read(chip + 1), pics.isr(chip)) for chip in (0x20, 0xA0)}
            irq = pics.take()
            if irq is None:
                continue
            chip, line = (0xA0, irq - 8) if irq >= 8 else (0x20, irq)
            irr, imr, isr = before[chip]
            if irq == 15 and not pics.isr(0xA0) & 0x80:
                continue  # spurious at the slave
            assert irr & ~imr & 1 << line
            assert pics.isr(chip) == isr | 1 << line
            if not rotated:
                assert isr & ((2 << line) - 1) == 0
                assert irr & ~imr & ((1 << line) - 1) == 0 or chip == 0x20
    if not pics.output:
        assert pics.pair.vector() == 0x37
    elif pics.pair.vector() == 0x37:
        assert pics.irr() & ~pics.read(0x21) & 0x80
