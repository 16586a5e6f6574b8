import pytest

from trapline.arch.events import Event, EventType
from trapline.arch.vectors import Vector
from trapline.errors import FaultError, ProcessorLost
from trapline.hypervisor.vm import Vm
from trapline.machine.processor import Outcome, Processor, Watchpoint
from trapline.machine.scripted import ScriptedMemory, ScriptedProcessor, until_kicked, vmexit, watchpoint


def test_it_has_all_that_a_processor_has():
    names = [name for name in vars(Processor) if not name.startswith("_") or name in ("__enter__", "__exit__")]
    assert "run" in names
    assert not [name for name in names if not hasattr(ScriptedProcessor([]), name)]


def test_the_example_of_its_documentation():
    processor = ScriptedProcessor([Outcome.RESET, vmexit(0x4E, info_2=0x1000)])
    Vm(processor, mask=1 << Vector.PF).run()
    assert processor.entries[-1].event == Event(Vector.PF, EventType.EXCEPTION)
    assert processor.entries[-1].vmcb.save.cr2 == 0x1000


def test_steps_are_played_in_order():
    def change(processor):
        processor.vmcb.save.rip = 7

    def say(processor):
        return Outcome.DEADLINE

    with ScriptedProcessor([Outcome.KICKED, change, say, ProcessorLost("gone")]) as processor:
        assert [processor.run(None) for _ in range(3)] == [Outcome.KICKED, Outcome.VMEXIT, Outcome.DEADLINE]
        with pytest.raises(ProcessorLost):
            processor.run(None)
        assert processor.run(5.0) is Outcome.OFF
    assert [entry.vmcb.save.rip for entry in processor.entries] == [0, 0, 7, 7, 7]
    assert processor.entries[-1].deadline == 5.0
    assert processor.commands == ["close"]


def test_a_reset_clears_the_control_area_alone():
    processor = ScriptedProcessor([Outcome.RESET])
    processor.vmcb.control.asid = processor.vmcb.save.rip = 1
    processor.run(None)
    assert (processor.vmcb.control.asid, processor.vmcb.save.rip) == (0, 1)


def test_an_exit_overwrites_the_one_before():
    processor = ScriptedProcessor(
        [vmexit(0x4E, info_1=1, info_2=2, vectoring=Event(0x20, EventType.INTR)), vmexit(0x46)]
    )
    processor.run(None)
    processor.run(None)
    control = processor.vmcb.control
    assert (control.exit_code, control.exit_info_1, control.exit_info_2, control.exit_int_info) == (
        0x46,
        0,
        0,
        0,
    )


def test_a_kick_comes_before_the_next_step():
    processor = ScriptedProcessor([Outcome.DEADLINE, until_kicked])
    processor.kick()
    assert [processor.run(None) for _ in range(2)] == [Outcome.KICKED, Outcome.DEADLINE]
    processor.shutdown()
    assert processor.commands == ["kick", "shutdown"]


def test_records_reach_the_sink():
    taken = []
    processor = ScriptedProcessor([lambda processor: processor.sink(memoryview(b"record"))])
    processor.on_records(taken.append)
    processor.run(None)
    assert taken == [b"record"]


def test_memory_ends_somewhere():
    memory = ScriptedMemory(0x1000)
    memory.write(0xFFE, b"ab")
    assert memory.read(0xFFE, 2) == b"ab"
    for gpa in (0xFFF, 0x1000, 1 << 40):
        with pytest.raises(FaultError, match=f"{gpa:#x}: there is no memory"):
            memory.write(gpa, b"ab")


def test_breakpoints_and_watchpoints_are_those_of_the_entry():
    watched = Watchpoint(0x1000, 4, reads=False)
    processor = ScriptedProcessor([Outcome.BREAKPOINT, watchpoint(watched)])
    processor.set_breakpoints(frozenset({0x7C00}))
    assert processor.run(None) is Outcome.BREAKPOINT
    assert processor.hit is None
    processor.set_breakpoints(frozenset())
    processor.set_watchpoints((watched,))
    assert processor.run(None) is Outcome.WATCHPOINT
    assert processor.hit == watched
    assert [(entry.breakpoints, entry.watchpoints) for entry in processor.entries] == [
        (frozenset({0x7C00}), ()),
        (frozenset(), (watched,)),
    ]


def test_a_kick_may_come_before_the_step_that_waits_for_it():
    processor = ScriptedProcessor([until_kicked, Outcome.OFF])
    processor.kick()
    assert [processor.run(None), processor.run(None)] == [Outcome.KICKED, Outcome.OFF]
