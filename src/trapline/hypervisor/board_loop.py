"""The run loop of a machine with several CPUs. Each exit is handled as in `loop`, on its CPU."""

from collections.abc import Callable, Sequence
from functools import partial

from trapline.machine.board import Board
from trapline.machine.processor import Outcome

from .loop import HANDLERS, answer_exit, answer_outcome, requeue, run_on
from .stop import Resume, Stop, StopReason
from .vcpu import Vcpu


def run(
    board: Board, vcpus: Sequence[Vcpu], deadline: float | None, kicked: Callable[[Vcpu], Stop | None]
) -> tuple[Vcpu, Stop]:
    """Run the guest until one of its CPUs stops it; return that one, and why.

    As `loop.run`. After every stop but TIMEOUT no CPU executes, nor while `kicked` is called.
    """
    for vcpu in vcpus:
        if vcpu.undelivered is not None:
            stop = run_on(vcpu, vcpu.undelivered)
            if stop is not None:
                return vcpu, stop
    while True:
        number, outcome = board.run(deadline)
        vcpu = vcpus[number]
        if outcome is Outcome.VMEXIT:
            answer = answer_exit(vcpu, HANDLERS)
            if answer is Resume.REQUEUE:
                requeue(vcpu, vcpu.vectoring)
            stop = answer if isinstance(answer, Stop) else None
        else:
            if outcome is Outcome.KICKED:
                board.pause()
            stop = answer_outcome(vcpu, outcome, partial(kicked, vcpu))
        if stop is not None:
            if stop.reason is not StopReason.TIMEOUT:
                board.pause()
            return vcpu, stop
