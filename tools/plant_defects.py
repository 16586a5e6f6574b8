#!/usr/bin/env python3
"""Plant known defects, one at a time, and see whether the tests notice: a test of the tests.

Each defect is put into a copy of the checkout. The unit tests run first; if they notice nothing, or with
--acceptance for every defect, the guests of tests/acceptance/test_matrix.py run as well. The table says who
noticed. The exit status is 1 when nobody noticed some defect, 2 when the tests cannot tell: they fail without
one, or a defect no longer fits the code.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]

FIRST: Final = ("hypervisor", "processors")
"""Where most defects are noticed."""
LEFT_OUT: Final = ("acceptance", "tools", "test_plant_defects.py")
"""Whole guests come later; the test of the table would notice every defect, and for the wrong reason."""
MATRIX: Final = "tests/acceptance/test_matrix.py"
UNIT_LIMIT: Final = 300.0
MATRIX_LIMIT: Final = 1800.0

_QEMU: Final = "src/trapline/processors/qemu"
_TCG, _MONITOR, _PROCESSOR, _PLANS, _STOPS, _DELIVERIES, _RING, _BIOS = (
    f"{_QEMU}/{name}.py"
    for name in ("quirks_tcg", "monitor/monitor", "processor", "plans", "stops", "deliveries", "ring", "bios")
)
_EMULATION: Final = "src/trapline/arch/emulation.py"
_HYPERVISOR: Final = "src/trapline/hypervisor"
_DELIVERY, _HANDLERS, _INTERCEPTS, _LOOP = (
    f"{_HYPERVISOR}/{name}.py" for name in ("delivery", "handlers", "intercepts", "loop")
)
_TRACE: Final = "src/trapline/trace"
_CLOSURES, _ARRAYS, _TREE, _EXCEPTIONS, _STORE, _TALLY, _RECORDER, _RULES, _JSONL, _QEMU_LOG = (
    f"{_TRACE}/{name}.py"
    for name in (
        "condition/closures", "condition/arrays", "condition/tree", "exceptions", "store", "tally", "recorder", "rules",
        "jsonl", "qemu_log",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: `new` is written where `old` stands. A letter tells apart the paths that can have it."""

    number: str
    name: str
    file: str
    old: str
    new: str
    no_guest_can_tell: str = ""
    """Why a whole guest sees nothing of it."""


_AFTER: Final = "a guest sees nothing of what reads its records"
_STOPPING: Final = "the guests of the matrix run without breakpoints and watchpoints"

DEFECTS: Final = (
    Defect("1a", "no #DF combining", _DELIVERY, "    if result is SHUTDOWN:",
           "    if result is not SHUTDOWN:\n        result = queued\n    else:"),
    Defect("1b", "no #DF combining", _TCG, "        if result is SHUTDOWN:",
           "        if result is not SHUTDOWN:\n            result = Event(vector, EventType.EXCEPTION, code)\n"
           "        else:"),
    Defect("2a", "no triple fault", _DELIVERY, "        return Stop(StopReason.SHUTDOWN)", "        result = queued"),
    Defect("2b", "no triple fault", _TCG, "            control.exit_code = ExitCode.SHUTDOWN\n            return True",
           "            result = Event(vector, EventType.EXCEPTION, code)"),
    Defect("3", "no INT rewind", _TCG, ".control.nrip, self._vmcb.save.rip = self._vmcb.save.rip, rip",
           ".control.nrip = self._vmcb.save.rip"),
    Defect("4", "no #DB after an emulated instruction", _EMULATION, "if not flags & RFLAGS.TF:", "if True:"),
    Defect("5", "EFER.SVME visible", _HANDLERS, "save.efer & ~EFER.SVME,", "save.efer,"),
    Defect("6", "SVM instruction skipped instead of #UD", _HANDLERS, "    return raise_exception(vcpu, Vector.UD)",
           "    vcpu.processor.vmcb.save.rip += 3\n    return Resume.DONE"),
    Defect("7a", "CR2 not set", _DELIVERY, "vcpu.save.cr2 = exit.address", "pass"),
    Defect("7b", "CR2 not set", _TCG, "self._vmcb.save.cr2 = control.exit_info_2", "pass"),
    Defect("7c", "CR2 not set", _MONITOR, 'code.mov(vmcb("save.cr2"), RDX)', "pass"),
    Defect("8a", "error code lost", _DELIVERY, "return exit_info_1 & 0xFFFF_FFFF", "return 0"),
    Defect("8b", "error code lost", _TCG, "code = control.exit_info_1 & 0xFFFF_FFFF if", "code = 0 if"),
    Defect("8c", "error code lost", _MONITOR,
           'code.mov(Mem(RAX, offset_of(Vmcb, "control.event_inj") + 4), EDX)', "pass"),
    Defect("9", "HSAVE_PA not trapped", _INTERCEPTS, "(msr.EFER, msr.VM_HSAVE_PA, msr.VM_CR)", "(msr.EFER, msr.VM_CR)"),
    Defect("10a", "CPL-3 #GP not turned into #UD", _TCG, "candidate = vectoring is None and",
           "candidate = vectoring is None and self._vmcb.save.cpl != 3 and"),
    Defect("10b", "CPL-3 #GP not turned into #UD", _TCG, "real = self._wanted | 1 << Vector.GP", "real = self._wanted"),
    Defect("10c", "CPL-3 #GP not turned into #UD", _MONITOR, '    code.jne("sorted")\n    code.jmp("slow")',
           '    code.jne("sorted")\n    code.jmp("sorted")'),
    Defect("11", "INT n injected as type 3 (no DPL check)", _TCG, "encode(Event(event.vector, EventType.SOFT))",
           "encode(Event(event.vector, EventType.EXCEPTION))"),
    Defect("12a", "an interrupt counted as contributory", "src/trapline/arch/events.py",
           "vectoring.type != EventType.EXCEPTION or queued.type != EventType.EXCEPTION:\n        return queued\n",
           "queued.type != EventType.EXCEPTION:\n        return queued\n    if vectoring.type == EventType.INTR:\n"
           "        vectoring = Event(Vector.GP, EventType.EXCEPTION, 0)\n"),
    Defect("12b", "an interrupt counted as contributory", _TCG,
           "return vector == Vector.DF or bool(seen >> vector & 1)", "return False"),
    Defect("13a", "a vectoring exit swallowed", _LOOP, "            requeue(vcpu, vectoring)",
           "            pass",
           "during a delivery TCG leaves by exceptions only, and those owe it nothing unless they are discarded"),
    Defect("13b", "a vectoring exit swallowed", _TCG, "            self._vmcb.control.event_inj = encode(event)",
           "            self._vmcb.control.event_inj = 0"),
    Defect("13c", "a vectoring exit swallowed", _MONITOR,
           '    code.test(vmcb("control.exit_int_info", 32), VALID)\n    code.jne("slow")\n', ""),
    Defect("14", "BIOS copied again on reset", _BIOS, "        mailbox.token = 0\n", ""),
    Defect("15", "EFER write dropping SCE/NXE", _HANDLERS, "value & ~EFER.LMA |",
           "value & ~(EFER.LMA | EFER.SCE | EFER.NXE) |", "TCG keeps SVME by itself, so that no write exits"),
    Defect("16", "DR6 clobbered", _EMULATION, "save.dr6 |= DR6.BS", "save.dr6 = DR6.BS"),
    Defect("17a", "RF left after an emulated instruction", _EMULATION, "= flags & ~RFLAGS.RF", "= flags"),
    Defect("17b", "RF left after an emulated instruction", _MONITOR, "0xFFFF_FFFF & ~RFLAGS.RF", "0xFFFF_FFFF"),
    Defect("17d", "RF set where TCG sets none", _DELIVERY, "capabilities.forwards_set_rf", "capabilities"),
    Defect("17e", "RF set where TCG sets none", _PLANS, "RFLAGS.RF if sets_rf and",
           "RFLAGS.RF if"),
    Defect("18", "fast path: arming forgotten", _MONITOR,
           'code.or_(vmcb("control.intercept_exceptions"), EDX)', "pass"),
    Defect("19a", "record lost when the ring wraps", _RING, "self._tail += count", "self._tail = head"),
    Defect("19b", "record lost when the ring wraps", _MONITOR, "code.and_(EBX, layout.RING_RECORDS - 1)",
           "code.and_(EBX, layout.RING_RECORDS // 2 - 1)"),
    Defect("20", "back-pressure removed", _MONITOR, "cmp(EDX, layout.RING_RECORDS)", "cmp(EDX, 0x7FFF_FFFF)"),
    Defect("21", "PG not repaired", _MONITOR, "code.or_(ECX, CR0.PG)", "pass"),
    Defect("22", "PAM opened again on reset", _PROCESSOR, "self._mailbox.open_shadow = 0", "pass"),
    Defect("23a", "a missing value compared as 0", _CLOSURES,
           "(one := left(exception)) is not None and compare(one, constant)",
           "compare(left(exception) or 0, constant)", _AFTER),
    Defect("23b", "a missing value compared as 0", _ARRAYS, "return result if present is None else result & present",
           "return result", _AFTER),
    Defect("24", "arithmetic of a condition without a bound", _TREE, "left + right & WORD", "left + right", _AFTER),
    Defect("25", "exceptions numbered from 0 in every slice", _EXCEPTIONS, "        found._numbers = numbers\n", "",
           _AFTER),
    Defect("26", "stored records out of order", _STORE, "parts.appendleft(", "parts.append(", _AFTER),
    Defect("27", "the last place counted as the first", _TALLY, "self._first.setdefault(vector, record)",
           "self._first[vector] = record", _AFTER),
    Defect("28", "a Ctrl-C lost while records are written", _RECORDER, "signal.raise_signal(signal.SIGINT)", "pass",
           _AFTER),
    Defect("29", "CPL 1 and 2 taken for user code", _RULES, "(record.cpl == _USER_CPL)", "(record.cpl != 0)", _AFTER),
    Defect("30", "an address printed that is not there", _JSONL, "if flags & RecordFlags.HAS_ADDRESS else",
           "if address else", _AFTER),
    Defect("31", "a triple fault in QEMU's log read as a #DF", _QEMU_LOG, "if old == Vector.DF:", "if False:", _AFTER),
    Defect("32", "INT3 of a breakpoint left in memory", _STOPS,
           "self._put_back(address, byte, in_guest=not left)", "pass", _STOPPING),
    Defect("33", "an access forgotten when its instruction traps", _STOPS, "self._pending = hit", "pass", _STOPPING),
    Defect("34a", "an interrupt lost at a watchpoint", _TCG, "            set_intercept(control, ExitCode.INTR)",
           "            pass", _STOPPING),
    Defect("34b", "an interrupt lost at a watchpoint", _DELIVERIES,
           "idtr.limit, self._idt_limit = self._idt_limit, None", "self._idt_limit = None", _STOPPING),
    Defect("34c", "an event lost at a watchpoint", _DELIVERIES,
           "places = [(frame.gva, frame.width * len(frame.values))]", "places = []", _STOPPING),
)  # fmt: skip


class CannotTell(Exception):
    """The tests say nothing about a defect; the text says why."""


class Verdict(NamedTuple):
    """What a run of tests said: the first that failed, None when all passed; and how many seconds it took."""

    noticed_by: str | None
    seconds: float


def copy_checkout(target: Path) -> None:
    """Copy the files that git knows or would, as they are on the disk now."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():  # a deleted file is still listed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    words = [sys.executable, "-c", "import trapline; print(trapline.__file__)"]
    found = subprocess.run(words, cwd=target, env=_environment(target), stdout=subprocess.PIPE, text=True, check=True)
    if not Path(found.stdout.strip()).is_relative_to(target):
        raise CannotTell(f"the tests would import {found.stdout.strip()}, not the copy in {target}")


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout / "src")}  # wins over an installed package


def planted(defect: Defect, checkout: Path) -> str:
    """Return the defect's file with the defect in it; CannotTell unless it fits exactly one place."""
    file = checkout / defect.file
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if (places := text.count(defect.old)) != 1:
        raise CannotTell(f"defect {defect.number} ({defect.name}) fits {places} places of {defect.file}, not one")
    return text.replace(defect.old, defect.new)


def run_tests(checkout: Path, tests: list[str], limit: float) -> Verdict:
    """Run tests of a checkout up to the first failure."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-rfE", "--tb=no", "-p", "no:cacheprovider", *tests]
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            words, cwd=checkout, env=_environment(checkout), stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return Verdict(f"no end after {limit:.0f} s", limit)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started, a QEMU perhaps
            process.wait()
        output.seek(0)
        said = output.read()
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+::.*?)(?: - .*)?$", said, re.MULTILINE)
    if (status, failed is None) not in ((0, True), (1, False)) or not re.search(r"\d+ (passed|failed|error)", said):
        raise CannotTell(f"the tests do not run:\n{said.rstrip()}")
    return Verdict(failed[1] if failed else None, time.monotonic() - begin)


def unit_tests(checkout: Path) -> list[str]:
    """Return what runs everything but whole guests, the likely places first."""
    paths = (*(checkout / "tests").iterdir(), *(checkout / "tests" / "tools").iterdir())
    tests = [path for path in paths if path.is_dir() or path.match("test_*.py")]
    tests.sort(key=lambda path: (path.name not in FIRST, path))
    return [str(path.relative_to(checkout)) for path in tests if path.name not in LEFT_OUT]


def try_defects(defects: list[Defect], folder: Path, *, acceptance: bool) -> list[str]:
    """Print a line for each defect; return the numbers of those that nobody noticed."""
    pristine, copy, sound, unnoticed = folder / "pristine", folder / "planted", set(), []
    copy_checkout(pristine)
    texts = [planted(each, pristine) for each in defects]
    units = (unit_tests(pristine), UNIT_LIMIT)
    guests = ([MATRIX], MATRIX_LIMIT)
    for each, text in zip(defects, texts, strict=True):
        shutil.copytree(pristine, copy)
        (copy / each.file).write_text(text, encoding="utf-8")
        verdicts = []
        for tests, limit in (units, guests):
            if limit not in sound and (failed := run_tests(pristine, tests, limit).noticed_by):
                raise CannotTell(f"without any defect this fails: {failed}")
            sound.add(limit)
            verdicts.append(run_tests(copy, tests, limit))
            if each.no_guest_can_tell or (verdicts[0].noticed_by and not acceptance):
                break
        shutil.rmtree(copy)
        lines = [f"{one.noticed_by or '-'} ({one.seconds:.0f} s)" for one in verdicts]
        lines += [f"no guest can tell: {each.no_guest_can_tell}"] if each.no_guest_can_tell else []
        print(f"{each.number:>3}  {each.name:40}", f"\n{'':46}".join(lines), flush=True)
        if not any(one.noticed_by for one in verdicts):
            unnoticed.append(each.number)
    return unnoticed


def chosen(numbers: str) -> list[Defect]:
    """Return the defects that were asked for, all of them for no number: 7 means 7a, 7b and so on."""
    wanted = {number for number in numbers.split(",") if number}
    found = [each for each in DEFECTS if not wanted or wanted & {each.number, each.number.rstrip("abcdef")}]
    known = {number for each in found for number in (each.number, each.number.rstrip("abcdef"))}
    if wanted - known:
        raise CannotTell(f"no defect has the number {min(wanted - known)}; --list shows them")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Try the defects; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="list the defects and do nothing")
    parser.add_argument("--only", metavar="3,7b", default="", help="these defects only")
    parser.add_argument("--acceptance", action="store_true", help="run the whole guests for every defect")
    options = parser.parse_args(arguments)
    try:
        defects = chosen(options.only)
        if options.list:
            print(*(f"{each.number:>3}  {each.name:40} {each.file}" for each in defects), sep="\n")
            return 0
        with tempfile.TemporaryDirectory(prefix="trapline-defects-") as folder:
            unnoticed = try_defects(defects, Path(folder), acceptance=options.acceptance)
    except CannotTell as reason:
        print(f"plant_defects.py: {reason}", file=sys.stderr)
        return 2
    print(f"unnoticed: {', '.join(unnoticed)}" if unnoticed else f"all {len(defects)} were noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
