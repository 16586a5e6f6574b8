from trapline.arch.vectors import Vector
from trapline.hypervisor.vm import Vm
from trapline.machine.board import Board
from trapline.machine.processor import Outcome
from trapline.machine.scripted_board import ScriptedBoard, startup


def test_it_has_all_that_a_board_has():
    names = [name for name in vars(Board) if not name.startswith("_")]
    assert {"cpus", "run", "pause"} <= set(names)
    assert not [name for name in names if not hasattr(ScriptedBoard([], cpus=1), name)]


def test_the_example_of_its_documentation():
    board = ScriptedBoard([(0, Outcome.RESET), (1, Outcome.INIT), (1, startup(0x08))], cpus=2)
    Vm(board.cpus[0], board=board, mask=1 << Vector.PF).run()
    assert board.cpus[1].vmcb.save.cs.base == 0x8000


def test_a_kick_comes_before_the_next_step():
    board = ScriptedBoard([(1, Outcome.DEADLINE)], cpus=2)
    board.cpus[0].kick()
    assert [board.run(None) for _ in range(3)] == [(1, Outcome.KICKED), (1, Outcome.DEADLINE), (0, Outcome.OFF)]


def test_the_cpus_have_the_same_memory():
    first, second = ScriptedBoard([], cpus=2).cpus
    first.memory.write(0x1000, b"shared")
    assert second.memory.read(0x1000, 6) == b"shared"
    assert first.vmcb is not second.vmcb
