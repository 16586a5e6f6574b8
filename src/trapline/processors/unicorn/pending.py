"""What waits for the next instruction boundary."""

from collections.abc import Callable


class Pending:
    """What the event window has to service before the guest resumes. Other threads and the devices add to it."""

    def __init__(self, stop: Callable[[], object]) -> None:
        """`stop` makes the CPU stop at an instruction boundary."""
        self._stop = stop
        self.due = False
        """Something wants to be serviced."""
        self.kicked = False
        """`machine.Processor.kick` was called."""
        self.ended = False
        """The guest switched the machine off or reset it.

        Unicorn ends a block of instructions before it stops: what they do does not count.
        """

    def give_up_turn(self) -> None:
        """Let another CPU execute, as a kick without a request."""
        self.kicked = self.due = True

    def interrupt(self) -> None:
        """Stop the CPU, for something is due.

        A stop alone is lost where the CPU does not run, and where the guest does nothing but raise exceptions.
        """
        self.due = True
        self._stop()
