"""Known defects of debuggers."""

from typing import Final

from tools.defect import Defect

from .reasons import NO_DEBUGGER

_DEBUGGER: Final = "src/trapline/debugger"
_GDB: Final = f"{_DEBUGGER}/gdb"
_DAP: Final = f"{_DEBUGGER}/dap"
_MCP: Final = f"{_DEBUGGER}/mcp"
_ADAPTER_TESTS: Final = ("tests/debugger/dap/test_adapter.py",)
_STUB_TESTS: Final = ("tests/debugger/gdb/test_stub.py",)

DEFECTS: Final = (
    Defect("97", "an exception without a signal delivered in gdb", f"{_GDB}/resuming.py",
           "return FORWARD if own == signals.TRAP else DISCARD", "return FORWARD", NO_DEBUGGER, _STUB_TESTS),
    Defect("98", "a breakpoint that gdb has cut to 32 bits not in the highest 2 GiB", f"{_GDB}/points.py",
           "sign_extended(address) if narrow else address", "address", NO_DEBUGGER, _STUB_TESTS),
    Defect("99", "RIP in gdb without the base of CS", f"{_GDB}/reading.py", "return target.cpu.address",
           "return target.cpu.registers.rip", NO_DEBUGGER, _STUB_TESTS),
    Defect("100", "a run to an instruction that stops in a deeper frame", "src/trapline/debugger/target.py",
           "(above is None or self.cpu.registers.rsp > above):", "True:", NO_DEBUGGER,
           ("tests/debugger/test_target.py",)),
    Defect("101", "floating-point registers of an earlier stop", f"{_DEBUGGER}/target.py",
           "self.stop, self._selected, self._fpu = stop, None, None", "self.stop, self._selected = stop, None",
           NO_DEBUGGER, ("tests/debugger/test_registers.py",)),
    Defect("102", "a packet of gdb whose checksum is wrong taken", f"{_GDB}/packets.py",
           "int(checksum, 16) == sum(payload) & 0xFF", "int(checksum, 16) >= 0", NO_DEBUGGER,
           ("tests/debugger/gdb/test_packets.py",)),
    Defect("103", "breakpoints of an editor lost when the guest restarts", f"{_DAP}/breakpoints.py",
           "        self._inserted, self._watched = frozenset(), frozenset()\n        points = list(self)",
           "        points = list(self)", NO_DEBUGGER, _ADAPTER_TESTS),
    Defect("104", "a decision about an exception taken for the next one too", f"{_DAP}/running.py",
           "decision, guest.decision = guest.decision, FORWARD", "decision = guest.decision", NO_DEBUGGER,
           _ADAPTER_TESTS),
    Defect("105", "a header with two lengths taken", f"{_DAP}/framing.py", "if len(lengths) != 1:", "if not lengths:",
           NO_DEBUGGER, ("tests/debugger/dap/test_framing.py",)),
    Defect("106", "numbers below 0 in an editor's expressions", f"{_DAP}/expressions.py",
           "self.read(operand).number) & M64", "self.read(operand).number)", NO_DEBUGGER,
           ("tests/debugger/dap/test_expressions.py",)),
    Defect("107", "a file beyond a link that leads out of an agent's directory", f"{_MCP}/files.py",
           "os.path.realpath(", "os.path.normpath(", NO_DEBUGGER,
           ("tests/debugger/mcp/test_traces.py", "-k", "refused")),
    Defect("108", "a machine not held at its triple fault", f"{_MCP}/machines.py",
           "FINAL - {StopReason.SHUTDOWN, StopReason.HALTED}", "FINAL", NO_DEBUGGER,
           ("tests/debugger/mcp/test_machines.py", "-k", "triple")),
    Defect("109", "an instruction that an agent skips executed again", f"{_MCP}/stopping.py",
           "        held.target.skip()", "        pass", NO_DEBUGGER,
           ("tests/debugger/mcp/test_machines.py", "-k", "discarded")),
    Defect("110", "console output told twice to an agent", f"{_MCP}/stopping.py",
           "new, held.told = output[held.told :], len(output)", "new = output[held.told :]", NO_DEBUGGER,
           ("tests/debugger/mcp/test_machines.py",)),
)  # fmt: skip
