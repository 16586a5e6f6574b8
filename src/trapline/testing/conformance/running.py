"""A processor beyond VMRUN: memory, kicks, deadlines, resets, and no state kept from one run to the next."""

import struct
import threading
from typing import Final

from trapline.arch.descriptors import CODE_16, DATA_16, REAL_IDT_LIMIT
from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode, exception_exit
from trapline.arch.registers import CR4, DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.operands import EAX, EBX, XMM0, Mem
from trapline.machine.processor import Outcome, Processor
from trapline.machine.scripted import until_kicked

from .check import Check, Exit, Turn
from .code import assemble
from .modes import CPUID, DATA, LONG, PROTECTED_32, REAL, UNMAPPED, page_table_entry, where

_SOON: Final = 0.05
"""Seconds."""
_LOOP: Final = b"\xeb\xfe"
_MINUTES: Final = 60.0


def _kick_soon(processor: Processor) -> None:
    threading.Timer(_SOON, processor.kick).start()


def _kick(processor: Processor) -> None:
    processor.kick()


def _shut_down(processor: Processor) -> None:
    processor.shutdown()


_END = Turn(Exit(ExitCode.CPUID, rip=len(_LOOP)), sets={"save.rip": len(_LOOP)})
"""The guest resumes after its loop."""


def _memory() -> Check:
    code = assemble(32, ("mov", EAX, Mem(None, DATA)), ("inc", EAX), ("mov", Mem(None, DATA + 8), EAX), "end:", "cpuid")
    end = code.labels["end"]

    def turn(value: int) -> Turn:
        changes = {"save.rax": value + 1, "save.rflags": RFLAGS.ALWAYS_ONE}
        exit = Exit(ExitCode.CPUID, rip=end, changes=changes, stores=((DATA + 8, struct.pack("<I", value + 1)),))
        return Turn(exit, sets={"save.rip": 0}, writes=((DATA, struct.pack("<I", value)),))

    return Check(
        "memory",
        "the guest reads what is written to its memory, and what it writes can be read",
        PROTECTED_32,
        0,
        code.blob,
        (turn(0x1234_5600), turn(0x0BAD_CAFA)),
    )


def _new_code() -> Check:
    first = assemble(32, ("mov", EAX, 1), "end:", "cpuid")
    second = assemble(32, ("mov", EAX, 2), "cpuid")
    end = first.labels["end"]
    return Check(
        "code that changes",
        "code that is overwritten between two runs is executed in its new form",
        PROTECTED_32,
        0,
        first.blob,
        (
            Turn(Exit(ExitCode.CPUID, rip=end, changes={"save.rax": 1})),
            Turn(
                Exit(ExitCode.CPUID, rip=end, changes={"save.rax": 2}),
                sets={"save.rip": 0},
                code=second.blob,
            ),
        ),
    )


def _new_mapping() -> Check:
    code = assemble(64, ("mov", EAX, Mem(None, DATA)), "end:", "cpuid")
    end = code.labels["end"]
    entry = (DATA + 0x1000 | 0x67).to_bytes(8, "little")
    return Check(
        "TLB_CONTROL",
        "TLB_CONTROL makes a page table that was written between two runs take effect",
        LONG,
        0,
        code.blob,
        (
            Turn(
                Exit(ExitCode.CPUID, rip=end, changes={"save.rax": 0x11}),
                writes=((DATA, b"\x11\0\0\0"), (DATA + 0x1000, b"\x22\0\0\0")),
            ),
            Turn(
                Exit(ExitCode.CPUID, rip=end, changes={"save.rax": 0x22}),
                sets={"save.rip": 0, "control.tlb_control": 1},
                writes=((page_table_entry(DATA), entry),),
            ),
        ),
    )


def _floating_point() -> Check:
    code = assemble(
        32,
        *("fninit", ("movd", XMM0, EAX), "fld1", "first:", "cpuid"),
        *("second:", ("movd", EBX, XMM0), ("fstp", Mem(None, DATA)), "wait", "end:", "cpuid"),
    )
    labels = code.labels
    value = 0x0123_4567
    return Check(
        "floating point over an exit",
        "registers that are not in the VMCB are kept while the guest is stopped",
        PROTECTED_32,
        0,
        code.blob,
        (
            Turn(
                Exit(ExitCode.CPUID, rip=labels["first"]),
                sets={"save.cr4": CR4.OSFXSR, "save.rax": value},
            ),
            Turn(
                Exit(
                    ExitCode.CPUID,
                    rip=labels["end"],
                    changes={"gprs.rbx": value},
                    stores=((DATA, struct.pack("<f", 1.0)),),
                ),
                sets={"save.rip": labels["second"]},
            ),
        ),
    )


def _mode_changes() -> Check:
    """Return a check of two entries in different modes: no state of the first remains."""
    blob = CPUID
    real = {
        "save.cr0": REAL.cr0, "save.cr3": 0, "save.cr4": 0, "save.efer": 1 << 12, "save.rip": 0,
        "save.rflags": RFLAGS.ALWAYS_ONE, "save.idtr.base": 0, "save.idtr.limit": REAL_IDT_LIMIT,
        **{
            f"save.{name}.{field}": value
            for name in ("es", "cs", "ss", "ds", "fs", "gs")
            for field, value in (
                ("selector", 0), ("base", 0), ("limit", 0xFFFF), ("attributes", CODE_16 if name == "cs" else DATA_16)
            )
        },
    }  # fmt: skip
    return Check(
        "another mode at the next entry",
        "VMRUN loads the whole state",
        LONG,
        0,
        blob,
        (Turn(Exit(ExitCode.CPUID)), Turn(Exit(ExitCode.CPUID), sets=real)),
    )


def _abandoned_event() -> Check:
    """Return a check of an event whose delivery failed: only the hypervisor can inject it again."""
    event = Event(0x51, EventType.INTR)
    return Check(
        "an event that failed",
        "an event that could not be delivered is not delivered at the next entry",
        LONG,
        0,
        CPUID,
        (
            Turn(
                Exit(exception_exit(Vector.PF), info_1=0, info_2=UNMAPPED + 0x51 * 16, vectoring=event),
                sets={"save.idtr.base": UNMAPPED},
                exceptions=1 << Vector.PF,
                inject=event,
            ),
            Turn(Exit(ExitCode.CPUID)),
        ),
    )


def _debug_state() -> Check:
    return Check(
        "the end of single steps",
        "TF that is cleared between two runs does not trap",
        PROTECTED_32,
        0,
        b"\x90\x90" + CPUID,
        (
            Turn(
                Exit(exception_exit(Vector.DB), rip=1, changes={"save.dr6": DR6.FIXED | DR6.BS}),
                sets={"save.rflags": RFLAGS.ALWAYS_ONE | RFLAGS.TF},
                exceptions=1 << Vector.DB,
            ),
            Turn(
                Exit(ExitCode.CPUID, rip=2),
                sets={"save.rflags": RFLAGS.ALWAYS_ONE, "save.dr6": DR6.FIXED},
                exceptions=1 << Vector.DB,
            ),
        ),
    )


CHECKS: Final = (
    _memory(),
    _new_code(),
    _new_mapping(),
    _floating_point(),
    _mode_changes(),
    _abandoned_event(),
    _debug_state(),
    *(
        Check(
            f"kick {where(mode, 0)}",
            "a kick from another thread stops a guest that loops; it can resume",
            mode,
            0,
            _LOOP + CPUID,
            (Turn(Outcome.KICKED, act=_kick_soon, step=until_kicked), _END),
        )
        for mode in (REAL, LONG)
    ),
    Check(
        "kick before the entry",
        "a kick of a stopped guest ends the next run at once",
        LONG,
        0,
        _LOOP + CPUID,
        (Turn(Outcome.KICKED, act=_kick), _END),
    ),
    Check(
        "deadline",
        "run returns at the deadline though the guest loops, and the guest can be stopped afterwards",
        LONG,
        0,
        _LOOP + CPUID,
        (Turn(Outcome.DEADLINE, seconds=_SOON), Turn(Outcome.KICKED, act=_kick_soon, step=until_kicked), _END),
    ),
    Check(
        "shutdown",
        "after a shutdown the machine is reset",
        LONG,
        0,
        CPUID,
        (Turn(Outcome.RESET, act=_shut_down, seconds=_MINUTES),),
    ),
)
