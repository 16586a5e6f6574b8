"""Known defects of traces, conditions and rules."""

from typing import Final

from tools.defect import Defect

from .reasons import AFTER, WATCHING

_TRACE: Final = "src/trapline/trace"
_CLOSURES, _ARRAYS, _TREE, _EXCEPTIONS, _STORE, _TALLY, _RECORDER, _RULES, _JSONL, _QEMU_LOG = (
    f"{_TRACE}/{name}.py"
    for name in (
        "condition/closures", "condition/arrays", "condition/tree", "exceptions", "store", "tally", "recorder", "rules",
        "jsonl", "qemu_log",
    )
)  # fmt: skip

DEFECTS: Final = (
    Defect("23a", "a missing value compared as 0", _CLOSURES,
           "(one := left(exception)) is not None and compare(one, constant)",
           "compare(left(exception) or 0, constant)", AFTER),
    Defect("23b", "a missing value compared as 0", _ARRAYS, "return result if present is None else result & present",
           "return result", AFTER),
    Defect("24", "arithmetic of a condition without a bound", _TREE, "left + right & WORD", "left + right", AFTER),
    Defect("25", "exceptions numbered from 0 in every slice", _EXCEPTIONS, "        found._numbers = numbers\n", "",
           AFTER),
    Defect("26", "stored records out of order", _STORE, "parts.appendleft(", "parts.append(", AFTER),
    Defect("27", "the last place counted as the first", _TALLY, "self._first.setdefault(vector, record)",
           "self._first[vector] = record", AFTER),
    Defect("28", "a Ctrl-C lost while records are written", _RECORDER, "signal.raise_signal(signal.SIGINT)", "pass",
           AFTER),
    Defect("29", "CPL 1 and 2 taken for user code", _RULES, "(record.cpl == _USER_CPL)", "(record.cpl != 0)", AFTER),
    Defect("30", "an address printed that is not there", _JSONL, "if flags & RecordFlags.HAS_ADDRESS else",
           "if address else", AFTER),
    Defect("31", "a triple fault in QEMU's log read as a #DF", _QEMU_LOG, "if old == Vector.DF:", "if False:", AFTER),
    Defect("88", "a number for a record that is left out", f"{_TRACE}/record_filter.py",
           "first + len(kept) // RECORD_SIZE", "first + place // RECORD_SIZE", AFTER,
           ("tests/trace/test_record_filter.py",)),
    Defect("89", "the condition of a stop ignored", f"{_TRACE}/condition/__init__.py",
           "return self.condition is None or self.condition.matches(exception)", "return True", WATCHING,
           ("tests/trace/condition/test_condition.py", "tests/session/test_run.py", "-m", "not qemu")),
    Defect("91", "a stop at what is not forced accepted", "src/trapline/trace/rules.py", "vectors & ~forced", "0",
           WATCHING, ("tests/session/test_run.py", "-m", "not qemu")),
)  # fmt: skip
