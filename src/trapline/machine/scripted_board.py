"""A board that replays a script: for tests of the hypervisor with several CPUs.

    board = ScriptedBoard([(0, Outcome.RESET), (1, Outcome.INIT), (1, startup(0x08))], cpus=2)
    Vm(board.cpus[0], board=board, mask=1 << Vector.PF).run()
    assert board.cpus[1].vmcb.save.cs.base == 0x8000

Each step is that of a `ScriptedProcessor`, with the number of the CPU that comes back; after the last one the machine
is off.
"""

from collections import deque
from collections.abc import Iterable

from trapline.arch.layout import zero

from .processor import Capabilities, Outcome
from .scripted import MANUAL, ScriptedProcessor, Step


def startup(vector: int) -> Step:
    """Return a step in which a startup IPI comes for the page `vector`."""

    def step(processor: ScriptedProcessor) -> Outcome:
        processor.vmcb.control.exit_info_1 = vector
        return Outcome.SIPI

    return step


class ScriptedBoard:
    """Implements `machine.Board` by a script. What happened is in the `entries` and `commands` of its CPUs."""

    def __init__(self, script: Iterable[tuple[int, Step]], *, cpus: int, capabilities: Capabilities = MANUAL) -> None:
        self.script = deque(script)
        """The steps that are left, each with the number of its CPU."""
        self.cpus = tuple(ScriptedProcessor([], capabilities) for _ in range(cpus))
        first = self.cpus[0]
        for cpu in self.cpus[1:]:
            cpu.memory, cpu.kicks, cpu.commands = first.memory, first.kicks, first.commands

    def run(self, deadline: float | None) -> tuple[int, Outcome]:
        """Play the next step, on its CPU."""
        number, step = self.script.popleft() if self.script else (0, Outcome.OFF)
        cpu = self.cpus[number]
        cpu.script.append(step)
        outcome = cpu.run(deadline)
        if cpu.script:  # a kick came before it
            self.script.appendleft((number, cpu.script.popleft()))
        if outcome in (Outcome.RESET, Outcome.WOKEN):
            for other in self.cpus:
                zero(other.vmcb.control)
        return number, outcome

    def pause(self) -> None:
        """Note it, among the commands."""
        self.cpus[0].commands.append("pause")
