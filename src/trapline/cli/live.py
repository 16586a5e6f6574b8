"""`--live`: a line for each exception, with repeats of a line folded."""

from collections.abc import Callable


class LiveLines:
    """Prints a line once; of its repeats it prints the number, at 10, 100, 1,000 and so on and at the end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` prints a line."""
        self._say = say
        self._line: str | None = None
        self._times, self._told = 0, 0
        self._next = 10

    def take(self, line: str) -> None:
        """Take the line of an exception."""
        if line != self._line:
            self.finish()
            self._say(line)
            self._line, self._times, self._told, self._next = line, 1, 1, 10
            return
        self._times += 1
        if self._times == self._next:
            self._next *= 10
            self._tell()

    def finish(self) -> None:
        """Print how often the last line came, unless that was printed."""
        if self._times > self._told:
            self._tell()

    def _tell(self) -> None:
        self._told = self._times
        self._say(f"  x{self._times:,}")
