"""Known defects of sessions, the library and results."""

from typing import Final

from tools.defect import Defect

from .reasons import NAMING, WATCHING

_SESSION: Final = "src/trapline/session"
_MACHINE_TESTS: Final = ("tests/session/test_machine.py", "-m", "not qemu")

DEFECTS: Final = (
    Defect("67", "a callback's error swallowed", "src/trapline/api.py", "self._raised = error", "pass", WATCHING,
           _MACHINE_TESTS),
    Defect("68", "a callback's condition ignored", f"{_SESSION}/observing.py",
           "if self._condition is not None and not self._condition.matches(exc):", "if False:", WATCHING,
           _MACHINE_TESTS),
    Defect("69", "Stop.deliver without effect", "src/trapline/api.py", "self.machine.session.vm.decide(decision)",
           "pass", WATCHING, _MACHINE_TESTS),
    Defect("70", "the guest's end at a timeout lost", "src/trapline/api.py",
           "if halted.reason is not StopReason.INTERRUPTED:", "if False:", WATCHING, _MACHINE_TESTS),
    Defect("72", "an exception counted twice for a rule", f"{_SESSION}/rules.py",
           "return {*self._rules, *(expectation.rule for expectation in self._expectations)}",
           "return [*self._rules, *(expectation.rule for expectation in self._expectations)]", WATCHING,
           ("tests/session/test_rules.py",)),
    Defect("73", "exit code 0 though a rule was violated", "src/trapline/report/result.py",
           "return RULE_BROKEN if code == 0 and self.violations else code", "return code", WATCHING,
           ("tests/session/test_rules.py",)),
    Defect("74", "exit code 0 though the guest reported a failure", "src/trapline/report/result.py",
           "            code = _GUEST_FAILED", "            pass", WATCHING,
           ("tests/cli/test_run.py", "-k", "exit_code")),
    Defect("75", "a dialogue that reads its text again", f"{_SESSION}/dialogue.py", "data, self._read_to = found",
           "data, _ = found", WATCHING, _MACHINE_TESTS),
    Defect("90", "a stop that hides a violated rule", f"{_SESSION}/run.py", "(ruling, stopping)", "(stopping, ruling)",
           WATCHING, ("tests/session/test_run.py", "-m", "not qemu")),
    Defect("92", "an output emptied before the guest runs", f"{_SESSION}/output.py", "os.O_CLOEXEC | os.O_NOCTTY",
           "os.O_CLOEXEC | os.O_TRUNC", WATCHING, ("tests/cli/test_outputs.py", "-k", "not_start")),
    Defect("93", "an output that is another name of an input", f"{_SESSION}/clash.py",
           "yield status.st_dev, status.st_ino\n", "yield target\n", WATCHING,
           ("tests/cli/test_outputs.py", "-k", "is_the_guest")),
    Defect("124", "callers guessed though symbols tell them", f"{_SESSION}/crash.py",
           "_unwound(registers, memory, names) or _by_frame", "_by_frame", NAMING,
           ("tests/cli/test_naming.py", "-k", "shut_down")),
)  # fmt: skip
