"""Known defects of explanations."""

from typing import Final

from tools.defect import Defect

from .reasons import NO_GUEST, ONE_CPU

_EXPLAIN: Final = "src/trapline/explain"

DEFECTS: Final = (
    Defect("35", "a cause named without a proof", f"{_EXPLAIN}/proof.py",
           "        for change in tried:\n            if attempt.changed(change).succeeds():",
           "        for change in tried:\n            if change:", NO_GUEST, ("tests/explain/test_random.py",)),
    Defect("36", "the second of two causes missed", f"{_EXPLAIN}/proof.py", "tried[:_TRIED]", "tried[:0]", NO_GUEST,
           ("tests/explain/test_explanation.py",)),
    Defect("37", "a PDPE of PAE paging blamed for rights", f"{_EXPLAIN}/pages.py", "del entries[0]", "pass",
           NO_GUEST, ("tests/explain/test_pages.py",)),
    Defect("38a", "the address of another page fault", f"{_EXPLAIN}/blackbox.py",
           "exit.address, exit.vectoring_address", "exit.address, exit.address", NO_GUEST,
           ("tests/explain/test_blackbox.py",)),
    Defect("39", "evidence that changes with the guest", f"{_EXPLAIN}/reading.py", "evidence.memory.detach()", "pass",
           NO_GUEST, ("tests/explain/test_blackbox.py",)),
    Defect("40", "exceptions of several states in one chain", f"{_EXPLAIN}/blackbox.py", '("rip", "rsp",', '("rsp",',
           NO_GUEST, ("tests/explain/test_evidence.py", "-m", "not slow")),
    Defect("41", "the processor not held against the model", f"{_EXPLAIN}/explain.py",
           "seen.event.vector in raised and ", "", NO_GUEST, ("tests/explain/test_explanation.py",)),
    Defect("42", "a repair stored where there is no memory", f"{_EXPLAIN}/memory.py",
           "                if before is not None:\n                    shift = at % 8 * 8",
           "                if (before := before or 0) >= 0:\n                    shift = at % 8 * 8",
           NO_GUEST, ("tests/explain/test_memory.py",)),
    Defect("43", "a handler that is not executable taken for a success", f"{_EXPLAIN}/attempt.py",
           " and self.handler_is_executable(outcome)", "", NO_GUEST, ("tests/explain/test_explanation.py",)),
    Defect("94", "page tables blamed without a proof", f"{_EXPLAIN}/paging.py",
           "if access.allowed(attempt.changed(change)) is not None:", "if change:", NO_GUEST,
           ("tests/explain/test_paging.py",)),
    Defect("95", "any values taken for a frame above an error code", f"{_EXPLAIN}/frames.py",
           "or not frame.flags & RFLAGS.ALWAYS_ONE ", "", NO_GUEST, ("tests/explain/test_rules.py",)),
    Defect("96", "a repair of page tables in a table that the walk reads", f"{_EXPLAIN}/tables.py",
           "gpa >= 0 and gpa not in used and", "gpa >= 0 and", NO_GUEST, ("tests/explain/test_paging.py",)),
    Defect("125", "an error in one explanation ends them all", f"{_EXPLAIN}/stored.py",
           "unexplained.attempt(made, lambda told: Explanation(None, (), self.chain[-1].becomes, (), (), told))",
           "made()", NO_GUEST, ("tests/cli/test_explain.py", "-k", "error_in")),
    Defect("137", "exceptions of two CPUs in one chain", "src/trapline/explain/blackbox.py",
           "growing.pop(piece.vcpu, [])", "growing.pop(0, [])", ONE_CPU, ("tests/explain/test_blackbox.py",)),
)  # fmt: skip
