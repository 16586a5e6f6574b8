"""Known defects of symbols."""

from typing import Final

from tools.defect import Defect

from .reasons import WATCHING

_SYMBOLS: Final = "src/trapline/symbols"
_MACHINE_TESTS: Final = ("tests/session/test_machine.py", "-m", "not qemu")

DEFECTS: Final = (
    Defect("71", "a breakpoint by name without the slide", "src/trapline/symbols/files.py",
           "return found[name] + file.slide", "return found[name]", WATCHING, _MACHINE_TESTS),
)  # fmt: skip
