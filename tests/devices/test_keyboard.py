"""The keyboard controller without a keyboard."""

import pytest

from trapline.devices.power import Action


def ask(pc, command):
    assert not pc.inb(0x64) & 2
    pc.outb(0x64, command)
    assert pc.inb(0x64) & 1
    value = pc.inb(0x60)
    assert not pc.inb(0x64) & 1
    return value


def test_the_controller_is_there(pc):
    assert pc.inb(0x64) == 0x1C
    assert ask(pc, 0xAA) == 0x55
    assert (ask(pc, 0xAB), ask(pc, 0xA9), ask(pc, 0xC0)) == (0x00, 0x00, 0x80)
    assert pc.machine.hints == []


def test_the_command_byte(pc):
    assert ask(pc, 0x20) == 0x61
    pc.outb(0x64, 0x60)
    pc.outb(0x60, 0x47)
    assert ask(pc, 0x20) == 0x47
    for command, mode in ((0xAD, 0x57), (0xA7, 0x77), (0xAE, 0x67), (0xA8, 0x47)):
        pc.outb(0x64, command)
        assert ask(pc, 0x20) == mode


def test_an_answer_stays_readable(pc):
    assert pc.inb(0x60) == 0
    pc.outb(0x64, 0xAA)
    assert (pc.inb(0x60), pc.inb(0x60)) == (0x55, 0x55)


def test_an_answer_that_nobody_fetched_gives_way_to_the_next(pc):
    pc.outb(0x64, 0xAA)
    pc.outb(0x64, 0xC0)
    assert pc.inb(0x60) == 0x80
    assert not pc.inb(0x64) & 1


def test_a20_by_the_output_port_as_every_boot_loader_does_it(pc):
    assert pc.machine.a20
    output = ask(pc, 0xD0)
    assert output & 3 == 3
    pc.outb(0x64, 0xD1)
    pc.outb(0x60, output & ~2)
    assert not pc.machine.a20
    assert pc.inb(0x92) & 2 == 0
    assert ask(pc, 0xD0) & 2 == 0
    pc.outb(0x64, 0xD1)
    pc.outb(0x60, 0xDF)
    pc.outb(0x64, 0xFF)
    assert pc.machine.a20
    assert pc.machine.request is None


def test_a20_by_commands_of_its_own(pc):
    pc.outb(0x64, 0xDD)
    assert not pc.machine.a20
    pc.outb(0x64, 0xDF)
    assert pc.machine.a20


@pytest.mark.parametrize("writes", [[(0x64, 0xFE)], [(0x64, 0xF0)], [(0x64, 0xD1), (0x60, 0x02)]])
def test_resets(pc, writes):
    for port, value in writes:
        pc.outb(port, value)
    assert pc.machine.request.action is Action.RESET


def test_answers_interrupt_if_the_command_byte_says_so(pc):
    pc.init_pics(masks=(0xFD, 0xFF))
    pc.outb(0x64, 0xD2)
    pc.outb(0x60, 0x1E)
    assert pc.interrupts() == [0x21]
    assert pc.inb(0x60) == 0x1E
    pc.outb(0x64, 0xAD)
    pc.outb(0x64, 0xAA)
    assert pc.interrupts() == []
    pc.inb(0x60)
    pc.outb(0x64, 0xAE)
    pc.outb(0x64, 0xAA)
    assert pc.interrupts() == [0x21]
    pc.inb(0x60)
    pc.outb(0x64, 0x60)
    pc.outb(0x60, 0x00)
    pc.outb(0x64, 0xAA)
    assert pc.interrupts() == []
    pc.outb(0x64, 0x60)
    pc.outb(0x60, 0x01)
    assert pc.interrupts() == [0x21]


def test_who_speaks_to_the_keyboard_is_told_that_there_is_none(pc):
    pc.outb(0x60, 0xED)
    pc.outb(0x60, 0x02)
    assert not pc.inb(0x64) & 1
    (hint,) = pc.machine.hints
    assert "a keyboard" in hint


def test_an_unknown_command_cancels_the_one_before(pc):
    pc.outb(0x64, 0xD1)
    pc.outb(0x64, 0x11)
    pc.outb(0x60, 0x00)
    assert pc.machine.request is None
    assert pc.machine.a20


def test_a_reset_forgets_answers(pc):
    pc.outb(0x64, 0xAA)
    pc.outb(0x64, 0xDD)
    pc.machine.reset()
    assert pc.inb(0x64) == 0x1C
    assert pc.machine.a20
