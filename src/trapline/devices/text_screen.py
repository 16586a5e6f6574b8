"""The screen of a VGA in text mode: 25 lines of 80 cells, each a character and its colours (IBM VGA, mode 3)."""

from typing import Final

ADDRESS: Final = 0xB8000
COLUMNS: Final = 80
LINES: Final = 25
SIZE: Final = 2 * COLUMNS * LINES
"""In bytes."""
_BLANK: Final = dict.fromkeys((*range(32), 127, 160, 255), " ")


def screen_lines(memory: bytes) -> tuple[str, ...]:
    """Return the text of a screen, without empty lines at either end; empty: nothing is on it."""
    text = memory[:SIZE:2].decode("cp437").translate(_BLANK)
    lines = [text[start : start + COLUMNS].rstrip() for start in range(0, len(text), COLUMNS)]
    written = [number for number, line in enumerate(lines) if line]
    return tuple(lines[written[0] : written[-1] + 1]) if written else ()
