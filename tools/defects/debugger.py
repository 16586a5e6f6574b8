"""Known defects of debuggers."""

from typing import Final

from tools.defect import Defect

from .reasons import NO_DEBUGGER

_DEBUGGER: Final = "src/trapline/debugger"
_GDB: Final = f"{_DEBUGGER}/gdb"
_STUB_TESTS: Final = ("tests/debugger/gdb/test_stub.py",)

DEFECTS: Final = (
    Defect("97", "an exception without a signal delivered in gdb", f"{_GDB}/resuming.py",
           "return FORWARD if own == signals.TRAP else DISCARD", "return FORWARD", NO_DEBUGGER, _STUB_TESTS),
    Defect("98", "a breakpoint that gdb has cut to 32 bits not in the highest 2 GiB", f"{_GDB}/points.py",
           "sign_extended(address) if narrow else address", "address", NO_DEBUGGER, _STUB_TESTS),
    Defect("99", "RIP in gdb without the base of CS", f"{_GDB}/reading.py", "return target.cpu.address",
           "return target.cpu.registers.rip", NO_DEBUGGER, _STUB_TESTS),
    Defect("100", "a run to an instruction that stops in a deeper frame", "src/trapline/debugger/target.py",
           "if above is None or self.cpu.registers.rsp > above:", "if True:", NO_DEBUGGER,
           ("tests/debugger/test_target.py",)),
)  # fmt: skip
