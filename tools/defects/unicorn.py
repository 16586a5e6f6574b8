"""Known defects of the processor on Unicorn."""

from typing import Final

from tools.defect import Defect

from .reasons import NO_DEBUGGER, ONE_CPU, STOPPING, WATCHING

_UNICORN: Final = "src/trapline/processors/unicorn"
_UNICORN_TESTS: Final = "tests/processors/unicorn"

DEFECTS: Final = (
    Defect("48", "RIP left on an instruction that REP repeats no more", f"{_UNICORN}/watchpoints.py",
           "                self._end_repetition()", "                pass", STOPPING,
           (f"{_UNICORN_TESTS}/test_watchpoints.py",)),
    Defect("49", "a watchpoint reported of an instruction that faulted", f"{_UNICORN}/watchpoints.py",
           "if event not in _AFTER:", "if False:", STOPPING, (f"{_UNICORN_TESTS}/test_watchpoints.py",)),
    Defect("50", "a watchpoint that does not follow the page tables", f"{_UNICORN}/watchpoints.py",
           "            elif writes:", "            elif False:", STOPPING,
           (f"{_UNICORN_TESTS}/test_watchpoints.py",)),
    Defect("51", "the #DB of the instruction that hit a watchpoint lost", f"{_UNICORN}/loop.py",
           "event == DEBUG_TRAP", "False", STOPPING, (f"{_UNICORN_TESTS}/test_watchpoints.py",)),
    Defect("52", "stores of what comes after a breakpoint", f"{_UNICORN}/hooks.py",
           "self._refused = self.saved = True", "self.saved = True", "", (f"{_UNICORN_TESTS}/test_breakpoints.py",)),
    Defect("53", "an interrupt of the VMCB noticed late", f"{_UNICORN}/loop.py",
           "cpu.generation, self._pending.due = None, True", "cpu.generation = None", "",
           (f"{_UNICORN_TESTS}/test_processor.py",)),
    Defect("54", "an interrupt of the machine in a single step", f"{_UNICORN}/interrupts.py",
           "is not None and not self._control.int_ctl & IntCtl.V_INTR_MASKING", "is not None", STOPPING,
           (f"{_UNICORN_TESTS}/test_processor.py",)),
    Defect("55", "an NMI inside the handler of an NMI", f"{_UNICORN}/interrupts.py",
           "self._state.nmi_blocked = True", "pass", "", (f"{_UNICORN_TESTS}/test_processor.py",)),
    Defect("56", "SFMASK not applied by SYSCALL", f"{_UNICORN}/calls.py",
           "~(save.sfmask | RFLAGS.RF)", "~RFLAGS.RF", "", (f"{_UNICORN_TESTS}/test_calls.py",)),
    Defect("57", "ports permitted whatever the TSS says", f"{_UNICORN}/bus.py",
           "or self._read(task.base + place)", "or self._read(task.base + place) * 0", "",
           (f"{_UNICORN_TESTS}/test_bus.py",)),
    Defect("58", "a delivery replayed over tables that changed", f"{_UNICORN}/delivery_cache.py",
           "if read(ram.words) != before:", "if False:", "", (f"{_UNICORN_TESTS}/test_delivery_cache.py",)),
    Defect("87", "console output before the record of an earlier exception", f"{_UNICORN}/pc.py",
           "if forwarding.waits:", "if False:", WATCHING, ("tests/cli/test_choice.py",)),
    Defect("115", "floating-point registers that are written lost", f"{_UNICORN}/engine.py",
           "context_bytes[FPU] = loaded", "pass", NO_DEBUGGER, (f"{_UNICORN_TESTS}/test_fpu.py",)),
    Defect("134", "code executed that another CPU has changed", f"{_UNICORN}/board.py", "if copies.are_stale():",
           "if False:", ONE_CPU, (f"{_UNICORN_TESTS}/test_board.py",)),
    Defect("135", "a CPU started without an INIT", "src/trapline/devices/local.py", "elif self._waits:", "elif True:",
           ONE_CPU, ("tests/devices/test_several_cpus.py",)),
    Defect("136", "an interrupt for all CPUs but the sender taken by it", "src/trapline/devices/machine.py",
           "absent = sender if command.shorthand == OTHERS else None", "absent = None", ONE_CPU,
           ("tests/devices/test_several_cpus.py",)),
)  # fmt: skip
