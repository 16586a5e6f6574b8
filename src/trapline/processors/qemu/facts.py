"""What one QEMU does where QEMUs differ: found by `probe` once for each program, and kept in the user's cache.

Each fact is true where the CPU follows the manual: QEMU's TCG, or that of this machine under KVM, which has facts of
its own. Nothing is guessed from a version.
"""

import contextlib
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Final, NamedTuple

from trapline.errors import ProcessorError
from trapline.machine.processor import Capabilities

from .version import check_version


class Facts(NamedTuple):
    """What a QEMU's TCG does."""

    version: tuple[int, int, int]
    """The answer of QMP: another one means that the program is not the one that was probed."""
    faults_set_rf: bool
    """The flags that a fault pushes have RF set (APM vol. 1, 3.1.6)."""
    interrupts_keep_rf: bool
    """The flags that an interrupt or NMI pushes have RF as it was."""
    loads_shadow: bool
    """VMRUN loads the interrupt shadow (APM vol. 2, 15.21.5)."""
    plain_gate_codes: bool
    """In long mode too the error code of a gate is vector * 8 + 2 (APM vol. 2, 8.4.1)."""
    nests_in_real_mode: bool
    """Nested tables are walked while the guest's paging is off (APM vol. 2, 15.25.5)."""
    wide_invalid: bool
    """The exit code of INVALID has 64 bits (APM vol. 2, appendix C)."""
    knows_int1: bool
    """INT1 raises #DB (APM vol. 3), and not #UD."""
    hlt_asks: bool
    """The #DB of a HLT under TF asks the intercept of #DB, if it is raised at all."""
    saves_nrip: bool
    """An exit stores the address of the next instruction (APM vol. 2, 15.7.1)."""
    ts_error_code: bool
    """EXITINFO1 of the exit for #TS has the error code, which the manual leaves undefined (APM vol. 2, 15.12.11)."""


def capabilities(accelerator: str, facts: Facts) -> Capabilities:
    """Return what a QEMU with these facts can do, with a CPU of 40 address bits."""
    tcg = accelerator == "tcg"
    return Capabilities(
        name=f"QEMU ({accelerator})",
        ts_error_code=facts.ts_error_code,
        lmsle=tcg,
        hides_svm=tcg,
        takes_any_efer=tcg,
        physical_bits=40,
        sets_rf=facts.faults_set_rf,
        interrupts_keep_rf=facts.interrupts_keep_rf,
        forwards_set_rf=not tcg,
        delivers_as_modelled=not tcg,
    )


MANUAL: Final = Facts((0, 0, 0), *[True] * (len(Facts._fields) - 1))
"""A processor by the manual."""

_TOLD: Final = {
    "faults_set_rf": (
        "RF of faults",
        "set in the flags that a fault pushes",
        "not set in the flags that a fault pushes",
    ),
    "interrupts_keep_rf": (
        "RF of IRQs",
        "as it was in the flags that an interrupt pushes",
        "set in the flags that an interrupt pushes",
    ),
    "loads_shadow": (
        "STI, MOV SS",
        "VMRUN loads their interrupt shadow",
        "an exit ends their interrupt shadow",
    ),
    "plain_gate_codes": (
        "gate errors",
        "vector * 8 + 2 in every mode",
        "vector * 16 + 2 in long mode, not vector * 8 + 2",
    ),
    "nests_in_real_mode": (
        "--isolate",
        "nested page tables are walked in every mode",
        "refused: nested page tables are not walked while the guest's paging is off",
    ),
    "wide_invalid": (
        "INVALID",
        "its exit code has 64 bits",
        "its exit code has 32 bits",
    ),
    "knows_int1": (
        "INT1",
        "raises #DB",
        "raises #UD, not #DB",
    ),
    "hlt_asks": (
        "HLT under TF",
        "its #DB asks the intercept, if it is raised",
        "its #DB asks no intercept; HLT is intercepted where #DB is forced",
    ),
    "saves_nrip": (
        "nRIP",
        "is saved by exits",
        "is not saved by exits; instructions are decoded",
    ),
    "ts_error_code": (
        "#TS",
        "its exit has the error code",
        "its exit has no error code; it is not intercepted",
    ),
}
"""Short name, and sentences for true and false."""


class Told(NamedTuple):
    """A fact for people."""

    name: str
    by_the_manual: bool
    sentence: str


def tell(facts: Facts) -> list[Told]:
    """Return the facts in sentences, in their order."""
    rows = ((name, getattr(facts, name), texts) for name, texts in _TOLD.items())
    return [Told(texts[0], value, texts[1] if value else texts[2]) for name, value, texts in rows]


class Key(NamedTuple):
    """A program, as far as a file tells it from the one that was there before."""

    path: str
    size: int
    mtime: int
    """In nanoseconds."""
    kvm: str = ""
    """Under KVM, the kernel and the CPU of this machine."""


def key_of(program: str, accelerator: str = "tcg") -> Key:
    """Return the key of a program, by the file that its name leads to; raises OSError."""
    path = Path(program).resolve()
    status = path.stat()
    return Key(str(path), status.st_size, status.st_mtime_ns, _this_machine() if accelerator == "kvm" else "")


def _this_machine() -> str:
    """Return the kernel's release and the CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join([platform.release(), *names[:1]])


def load(key: Key) -> Facts | None:
    """Return what is kept of a program; None: nothing, or nothing that is fit for use."""
    file = _file(key)
    if file is None:
        return None
    try:
        kept = json.loads(file.read_bytes())
        if kept["program"] != key._asdict() or kept["facts"].keys() != set(Facts._fields):
            return None
        major, minor, patch = map(int, kept["facts"].pop("version"))
        return Facts((major, minor, patch), **{name: _checked(value) for name, value in kept["facts"].items()})
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def store(key: Key, facts: Facts) -> None:
    """Keep the facts of a program, in the place of older ones; without effect where nothing can be written."""
    file = _file(key)
    if file is None:
        return
    text = json.dumps({"program": key._asdict(), "facts": facts._asdict()}, indent=1)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_name(f".{file.name}-{os.getpid()}")
        try:
            scratch.write_text(text, encoding="utf-8")
            scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)


def forget(key: Key) -> None:
    """Drop what is kept of a program."""
    file = _file(key)
    if file is not None:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def check_probed(facts: Facts, version: tuple[int, int, int] | None, program: str, accelerator: str) -> None:
    """Raise ProcessorError where a program is another QEMU now than when it was probed; the next run probes it again.

    So it is where the program is a script, or its file was put back. Raises LaunchError for a QEMU that is too old.
    """
    if version is None:  # it has ended
        return
    check_version(version)
    if version != facts.version:
        with contextlib.suppress(OSError):
            forget(key_of(program, accelerator))
        numbers, probed = (".".join(map(str, each)) for each in (version, facts.version))
        raise ProcessorError(f"{program} is QEMU {numbers} now, and was {probed}; run it again")


def _checked(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _file(key: Key) -> Path | None:
    """Return where the facts of a program are, one file for each path; None: the user has no home."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        cache = cache if cache.is_absolute() else Path.home() / ".cache"  # as the XDG specification has it
    except RuntimeError:
        return None
    kind = "kvm" if key.kvm else "qemu"
    return cache / "trapline" / f"{kind}-{hashlib.sha256(os.fsencode(key.path)).hexdigest()[:16]}.json"
