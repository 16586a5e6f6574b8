"""The machine as a whole: what a processor asks of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st


def test_nothing_is_pending_after_the_reset(pc):
    assert pc.machine.cpus[0].pending() is None
    assert not pc.machine.cpus[0].nmi_pending()
    assert pc.machine.request is None
    assert pc.machine.hints == []
    assert pc.machine.a20
    assert pc.machine.cpus[0].tpr == 0


@pytest.mark.parametrize(
    ("gpa", "name"), [(0xB8000, "a VGA"), (0xFED00000, "an HPET"), (0xFED40000, "a TPM"), (0xE0000000, None)]
)
def test_memory_that_is_not_there_reads_all_ones(pc, gpa, name):
    for size in (1, 2, 4, 8):
        pc.machine.mmio_write(gpa, size, 0)
        assert pc.machine.mmio_read(gpa, size) == (1 << 8 * size) - 1
    assert len(pc.machine.hints) == (name is not None)
    assert all(name in hint and f"{gpa:#x}" in hint for hint in pc.machine.hints)


def test_the_earlier_timer_is_the_next_event(pc):
    pit = pc.machine.next_event()
    pc.lapic(0x320, 0x40)
    pc.lapic(0x380, 1000)
    assert pc.machine.next_event() == 2000
    pc.lapic(0x380, 0xFFFFFFFF)
    assert pc.machine.next_event() == pit
    pc.outb(0x21, 0xFF)
    assert pc.machine.next_event() == 2 * 0xFFFFFFFF


def test_an_access_sees_what_has_happened_until_then(pc):
    pc.now += 60_000_000
    pc.outb(0x20, 0x0A)
    assert pc.inb(0x20) & 1


def test_a_kernel_with_a_tick_and_a_console(pc):
    pc.init_pics(masks=(0xEE, 0xFF))
    pc.program_pit(0, 2, 11932)
    pc.outb(0x3FA, 0xC7)
    pc.outb(0x3F9, 1)
    ticks, typed = 0, bytearray()
    for step in range(50):
        if step == 20:
            pc.machine.receive(b"ls\n")
        pc.now = pc.machine.next_event()
        pc.machine.advance()
        while (vector := pc.machine.cpus[0].pending()) is not None:
            assert pc.machine.cpus[0].acknowledge() == vector
            if vector == 0x20:
                ticks += 1
            else:
                assert vector == 0x24
                while pc.inb(0x3FD) & 1:
                    typed.append(pc.inb(0x3F8))
            pc.outb(0x20, 0x20)
    assert ticks == 50
    assert typed == b"ls\n"


def test_a_reset_starts_everything_again_and_keeps_the_hints(pc):
    fresh = snapshot(pc)
    pc.init_pics()
    pc.program_pit(0, 2, 100)
    pc.redirect(4, 0x44)
    pc.lapic(0x80, 0x55)
    pc.lapic(0x3E0, 3)
    pc.lapic(0x380, 1000)
    pc.lapic(0x300, 0x44430)
    pc.inb(0x1F0)
    pc.outb(0x61, 3)
    pc.outb(0x3FF, 1)
    pc.machine.reset()
    assert snapshot(pc) == fresh
    assert not pc.machine.cpus[0].nmi_pending()
    assert len(pc.machine.hints) == 1


def snapshot(pc):
    ports = [pc.inb(port) for port in (0x20, 0x21, 0xA0, 0xA1, 0x40, 0x61, 0x64, 0x92, 0x3F9, 0x3FA, 0x3FC, 0x3FF)]
    registers = [pc.lapic(register) for register in (0x80, 0xF0, 0x320, 0x350, 0x360, 0x380, 0x390, 0x3E0)]
    return ports, registers, pc.ioapic(0x18), pc.machine.next_event() - pc.now, pc.machine.cpus[0].pending()


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.integers(0xFEE00000, 0xFEE00FFF),
                st.sampled_from([0xFEE00000 + 16 * n for n in range(64)]),
                st.integers(0xFEC00000, 0xFEC000FF),
                st.sampled_from([0xFEC00000, 0xFEC00010]),
                st.integers(0, 0xFFFFFFFF),
            ),
            st.sampled_from([1, 2, 4, 8]),
            st.none() | st.integers(0, 0xFFFFFFFFFFFFFFFF) | st.integers(0, 0x3F),
            st.integers(0, 10**9),
        ),
        max_size=40,
    )
)
def test_no_access_of_memory_raises_and_a_value_fits_its_size(build, accesses):
    pc = build()
    pc.machine.receive(b"x" * 20)
    for gpa, size, value, ns in accesses:
        pc.now += ns
        if value is None:
            assert 0 <= pc.machine.mmio_read(gpa, size) < 1 << 8 * size
        else:
            pc.machine.mmio_write(gpa, size, value)
        event = pc.machine.next_event()
        assert event is None or event > pc.now
        vector = pc.machine.cpus[0].pending()
        if vector is not None:
            assert pc.machine.cpus[0].acknowledge() == vector
