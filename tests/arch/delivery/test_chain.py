"""From one failure to the next."""

from tests.arch.delivery.states import IDT, PT, STACKS, Memory, plain
from trapline.arch.delivery import Delivered, chain, deliver
from trapline.arch.descriptors import ist_offset
from trapline.arch.events import DOUBLE_FAULT, SHUTDOWN, Event, EventType
from trapline.arch.layout import leaves
from trapline.arch.paging import P
from trapline.arch.vectors import Vector

UD = Event(Vector.UD, EventType.EXCEPTION)
DE = Event(Vector.DE, EventType.EXCEPTION)
NP = Event(Vector.NP, EventType.EXCEPTION, 3)


def steps_of(world, **options):
    before = [leaf.value for leaf in leaves(world.save)]
    data = bytes(world.data)
    steps = chain(world.save, world.event, world.memory, **options)
    assert [leaf.value for leaf in leaves(world.save)] == before
    assert bytes(world.data) == data
    return steps


def copy_gate(world, vector):
    """Give another vector the gate of the event."""
    for offset in (0, 8):
        world.put(IDT + 16 * vector + offset, world.get(world.gate_at + offset))


def absent(world, gpa):
    entry = PT + 8 * (gpa >> 12)
    world.put(entry, world.get(entry) & ~P)


def test_one_step_where_nothing_fails():
    world = plain("long", UD)
    (step,) = steps_of(world)
    assert step.event == UD
    assert isinstance(step.outcome, Delivered)
    assert (step.cr2, step.follows) == (None, None)


def test_a_fault_while_a_fault_is_delivered():
    world = plain("long", DE)
    copy_gate(world, Vector.DF)
    world.put(world.gate_at, world.get(world.gate_at) & ~(1 << 47))
    first, second = steps_of(world)
    assert first.outcome.event == NP
    assert first.follows == second.event == DOUBLE_FAULT
    assert second.outcome.frame.values[-1] == 0


def test_a_benign_event_is_replaced():
    world = plain("long", Event(0x40, EventType.SOFT))
    copy_gate(world, Vector.NP)
    world.put(world.gate_at, world.get(world.gate_at) & ~(1 << 47))
    first, second = steps_of(world, next_rip=0x1236)
    assert first.follows == Event(Vector.NP, EventType.EXCEPTION, 0x202)
    assert second.outcome.frame.values[4] == world.save.rip, "RIP is on the instruction again"


def test_three_page_faults_are_a_shutdown():
    world = plain("long", UD)
    for page in range(STACKS.start, STACKS.stop, 0x1000):
        absent(world, page)
    copy_gate(world, Vector.PF)
    copy_gate(world, Vector.DF)
    first, second, third = steps_of(world)
    address = world.save.rsp - 8
    assert [step.cr2 for step in (first, second, third)] == [address] * 3
    assert first.follows.vector == Vector.PF
    assert second.follows == DOUBLE_FAULT
    assert third.follows is SHUTDOWN


def test_cr2_is_that_of_the_last_page_fault():
    """The stack of the interrupt is not mapped, nor is that of the #PF which follows."""
    world = plain("long", Event(0x40, EventType.INTR))
    world.save.idtr.limit = 0x40 * 16 + 15
    stack, other = (world.linear + STACKS.start + 0x1000 * number for number in (1, 2))
    world.save.rsp = stack
    copy_gate(world, Vector.PF)
    gate = IDT + 16 * Vector.PF
    world.put(gate, world.get(gate) | 1 << 32)
    world.put(world.save.tr.base - world.linear + ist_offset(1), other)
    for page in (STACKS.start, STACKS.start + 0x1000):
        absent(world, page)
    first, second, third = steps_of(world)
    assert (first.event.vector, second.event.vector, third.event) == (0x40, Vector.PF, DOUBLE_FAULT)
    assert [step.outcome.address for step in (first, second)] == [stack - 8, other - 8]
    assert [first.cr2, second.cr2] == [stack - 8, other - 8]
    assert second.event.error_code == 2


def test_cr2_stays_when_what_follows_is_not_a_page_fault():
    world = plain("long", UD)
    world.save.rsp = world.linear + STACKS.start + 0x1000
    absent(world, STACKS.start)
    gate = IDT + 16 * Vector.PF
    world.put(gate, 0)
    first, second, *_ = steps_of(world)
    assert second.outcome.event.vector == Vector.GP
    assert first.cr2 == second.cr2 == world.save.rsp - 8


def test_a_task_gate_ends_the_chain():
    world = plain("protected32", UD)
    world.put(world.gate_at, world.get(world.gate_at) & ~(0x1F << 40) | 5 << 40)
    world.put(world.code_at, world.get(world.code_at) & ~(0x1F << 40) | 9 << 40)  # a TSS
    (step,) = steps_of(world)
    assert (step.outcome.event, step.follows) == (None, None)
    assert "not modelled" in str(step.outcome)


def test_later_steps_see_what_earlier_ones_stored():
    """The first frame is pushed over the gate of the exception that its failure raises."""
    world = plain("protected32", UD, paging="none")
    world.save.rsp = IDT + Vector.GP * 8 + 12
    world.put(world.code_at, world.get(world.code_at) & ~(0xFFFF | 0xF << 48 | 1 << 55))  # the handler is behind it
    assert deliver(world.save, world.event, world.memory).check.name == "handler in segment"
    first, second, *_ = steps_of(world)
    assert first.follows.vector == second.event.vector == Vector.GP
    data = bytearray(world.data)
    for gpa, value in first.outcome.writes:
        data[gpa - 0x10000 : gpa - 0x10000 + len(value)] = value
    assert second.outcome.details["gate"] == Memory(data).u64(IDT + 8 * Vector.GP)
    assert world.get(IDT + 8 * Vector.GP) == 0
