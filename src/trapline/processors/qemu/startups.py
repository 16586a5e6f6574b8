"""What an INIT or a startup IPI does to the CPUs that it is for, and what the hypervisor is told."""

from collections.abc import Sequence

from trapline.machine.processor import Outcome

from . import apic
from .board_cpu import BoardCpu
from .outcomes import Outcomes


class Startups:
    """Resets and starts CPUs."""

    def __init__(self, cpus: Sequence[BoardCpu], outcomes: Outcomes) -> None:
        """`outcomes` are for the hypervisor: what is added here, and what a reset makes void."""
        self._cpus, self._outcomes = cpus, outcomes

    def send(self, sender: BoardCpu, command: apic.Command) -> None:
        """Let CPUs take an INIT or a startup IPI; the sender goes on when those that it starts have begun.

        Executed alone it goes on at once, and they begin when all are executed.
        """
        for number in command.targets:
            target = self._cpus[number]
            if command.init:
                self._send_init(sender, target)
            elif target.init_comes:
                target.startup = command.vector
            elif target.waits:
                sender.starting += 1
                target.starter, target.start_command = sender, command.value
                self._start(target, command.vector)
        if not sender.waits:
            self._outcomes.keep(sender, sender.finish(command))

    def init(self, cpu: BoardCpu) -> None:
        """Reset a CPU that is in the monitor."""
        cpu.take_init()
        self._outcomes.add(cpu, Outcome.INIT)
        if cpu.startup is not None:
            vector, cpu.startup = cpu.startup, None
            self._start(cpu, vector)

    def _send_init(self, sender: BoardCpu, target: BoardCpu) -> None:
        if target.waits:
            return
        if target.running:
            target.await_init()
            apic.send_nmi(sender, target)
            return
        self._outcomes.drop(target)
        if target.asleep:  # it has not begun yet
            target.waits, target.held = True, None
            target.release_starter()
            self._outcomes.add(target, Outcome.INIT)  # the hypervisor may know of the startup IPI already
        else:
            self.init(target)

    def _start(self, cpu: BoardCpu, vector: int) -> None:
        cpu.waits = False
        cpu.vmcb.control.exit_info_1 = vector
        self._outcomes.add(cpu, Outcome.SIPI)
