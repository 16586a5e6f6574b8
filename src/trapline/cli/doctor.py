"""`trapline doctor`: checks what this machine can run, by trying it."""

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from trapline.errors import TraplineError

from .terminal import tell

_IN_PROCESS: Final = "in process"
_SAMPLE_MEMORY: Final = 16 << 20
_SAMPLE_TIMEOUT: Final = 60
"""Seconds; on any machine that is not emulated itself it takes a fraction of one."""
_READY: Final = "guests can be run"
_BARE: Final = "guests that need no PC can be run; the others need what is missing above"
_NOTHING: Final = "no guest can be run: install what is missing above"


class Finding(NamedTuple):
    """One requirement that was checked."""

    name: str
    fine: bool
    needed: bool
    """Without it some guests cannot be run."""
    detail: str
    """A version, what was tried, or what to install."""


def doctor(*, as_json: bool, program: str | None) -> int:
    """Print the findings; return exit code 0 when nothing that is needed is missing, else 1."""
    findings = [
        Finding("Python", sys.version_info >= (3, 11), True, platform.python_version()),
        *(_library(name, "trapline") for name in ("iced-x86", "msgspec", "numpy", "pyelftools", "rich", "unicorn")),
    ]
    if all(finding.fine for finding in findings):
        findings.append(_try(_IN_PROCESS, True, _run_sample))
    findings.append(_library("qemu.qmp", "trapline[qemu]"))
    if all(finding.fine for finding in findings):
        findings += _qemu(program)
    ready = all(finding.fine for finding in findings if finding.needed)
    if as_json:
        rows = [finding._asdict() for finding in findings]
        json.dump({"ready": ready, "findings": rows}, sys.stdout, indent=2)
        print()
    else:
        for finding in findings:
            mark = "ok" if finding.fine else "MISSING" if finding.needed else "no"
            tell(f"{mark:<8} {finding.name:<14} {finding.detail}")
        bare = any(finding.fine for finding in findings if finding.name == _IN_PROCESS)
        tell(_READY if ready else _BARE if bare else _NOTHING)
    return 0 if ready else 1


def _run_sample() -> str:
    """Run a guest in this process."""
    from trapline.api import run
    from trapline.report.result import Ending

    result = run("sample:ud", exceptions="all", memory=_SAMPLE_MEMORY, timeout=_SAMPLE_TIMEOUT, processor="unicorn")
    if result.ending is not Ending.DEBUG_EXIT:
        raise TraplineError(f"the sample guest did not exit as expected: {result.ending.value} {result.detail}")
    return f"Unicorn ran a sample guest: {result.recorded} exception recorded"


def _library(name: str, package: str) -> Finding:
    try:
        return Finding(name, True, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, True, f"pip install '{package}'")


def _qemu(program: str | None) -> list[Finding]:
    from trapline.processors.qemu import kvm, launch, programs
    from trapline.processors.qemu.facts import tell
    from trapline.processors.qemu.uefi import find_uefi
    from trapline.processors.qemu.version import check_version

    def version() -> str:
        path = programs.find_qemu(program)
        numbers = programs.qemu_version(path)
        check_version(numbers)
        return f"{path} {'.'.join(map(str, numbers))}"

    findings = [
        _try("QEMU", True, version),
        _try("BIOS", True, lambda: str(programs.find_bios())),
        _try("UEFI", False, lambda: str(find_uefi().code)),
    ]
    if all(finding.fine for finding in findings if finding.needed):
        findings.append(_try("accel tcg", True, lambda: launch.try_out(program)))
    if all(finding.fine for finding in findings if finding.needed):
        facts = launch.facts_of(programs.find_qemu(program))
        findings += [Finding(told.name, told.by_the_manual, False, told.sentence) for told in tell(facts)]
    missing = kvm.nested_svm_missing()
    if missing is not None or not all(finding.fine for finding in findings if finding.needed):
        findings.append(Finding("accel kvm", False, False, missing or "needs what is missing above"))
    else:
        findings.append(_try("accel kvm", False, lambda: launch.try_out(program, "kvm")))
    return findings


def _try(name: str, needed: bool, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, needed, check())
    except TraplineError as error:
        return Finding(name, False, needed, str(error.args[0]))
