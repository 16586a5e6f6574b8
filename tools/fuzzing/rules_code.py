"""Rules: what the two processors make of instructions, each named in `departures`."""

import re
from typing import Final

from trapline.arch.descriptors import Attribute
from trapline.arch.registers import CR0, DR6, EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.machine.record import RecordFlags

from . import places
from .compare import Difference
from .evidence import only, opcode_of, ours_of, pair_of, theirs_of
from .runner import End

_LONG_32: Final = Attribute.L | Attribute.DB
_SYSENTER: Final = b"\x0f\x34"
_IN: Final = rb"[\xec\xed]"
_INS: Final = rb"[\x6c\x6d]"
_REX_TOO_EARLY: Final = rb"[\x40-\x4f][\x66\x67\xf0\xf2\xf3\x26\x2e\x36\x3e\x64\x65]"


def string_input(difference: Difference) -> bool:
    """#PF here, #GP there, of INS or OUTS."""
    if (pair := pair_of(difference)) is None:
        return False
    ours, theirs = pair
    if (ours.vector, theirs.vector, theirs.error_code) != (Vector.PF, Vector.GP, 0) or ours.rip != theirs.rip:
        return False
    return opcode_of(difference, theirs)[1][:1] in (b"\x6c", b"\x6d", b"\x6e", b"\x6f")


def cr4(difference: Difference) -> bool:
    """#GP there, of MOV CR4."""
    theirs = theirs_of(difference, Vector.GP)
    return theirs is not None and opcode_of(difference, theirs)[1][:3] == b"\x0f\x22\xe0"


def paging_off(difference: Difference) -> bool:
    """#GP here, of MOV CR0 in 64-bit mode; no paging any more there."""
    ours = ours_of(difference, Vector.GP)
    if ours is None or not ours.efer & EFER.LMA or opcode_of(difference, ours)[1][:2] != b"\x0f\x22":
        return False
    pair = pair_of(difference)
    return not (difference.second.save.cr0 if pair is None else pair[1].cr0) & CR0.PG


def efer(difference: Difference) -> bool:
    """#GP here, of WRMSR."""
    ours = ours_of(difference, Vector.GP)
    return (
        ours is not None
        and bool(ours.flags & RecordFlags.SYNTHESIZED)
        and opcode_of(difference, ours)[1][:2] == b"\x0f\x30"
    )


def group_11(difference: Difference) -> bool:
    """#UD here, of C6 or C7 with another /r than 0."""
    ours = ours_of(difference, Vector.UD)
    if ours is None:
        return False
    text = opcode_of(difference, ours)[1]
    return text[:1] in (b"\xc6", b"\xc7") and bool(text[1] & 0x38)


def group_3(difference: Difference) -> bool:
    """#UD here, of F6 or F7 with /1."""
    ours = ours_of(difference, Vector.UD)
    if ours is None:
        return False
    text = opcode_of(difference, ours)[1]
    return text[:1] in (b"\xf6", b"\xf7") and text[1] >> 3 & 7 == 1


def legacy_only(difference: Difference) -> bool:
    """#UD here, of AAM, AAD, SALC or INTO in long mode."""
    ours = ours_of(difference, Vector.UD)
    if ours is None or not ours.efer & EFER.LMA:
        return False
    return opcode_of(difference, ours)[1][:1] in (b"\xd4", b"\xd5", b"\xd6", b"\xce")


def resume(difference: Difference) -> bool:
    """RF alone differs, in a register or where it was pushed."""
    if only(difference, "rflags"):
        ours, theirs = difference.fields["rflags"]
        return ours == theirs | RFLAGS.RF
    if difference.record is not None or len(difference.fields) != 1:
        return False
    ((name, (ours, theirs)),) = difference.fields.items()  # the third byte of flags that were pushed
    return name.startswith("[") and ours == theirs | RFLAGS.RF >> 16


def sysenter(difference: Difference) -> bool:
    """CS has D there."""
    if difference.second.end is End.OTHER and "INVALID" in difference.second.detail:
        return difference.second.save.cs.attributes & _LONG_32 == _LONG_32
    if difference.fields.get("cs.attributes") == (0xA9B, 0xC9B):  # seen on a busy host: D has won over L
        return _SYSENTER in difference.first.memory
    return only(difference, "cs.attributes") and difference.fields["cs.attributes"] == (0xA9B, 0xE9B)


def fetch_ahead(difference: Difference) -> bool:
    """#PF at the start of a block whose last byte is in the page that is not there."""
    if (pair := pair_of(difference)) is None or pair[0].vector != Vector.PF:
        return False
    ours, theirs = pair
    start, end = ours.cs_base + ours.rip, ours.address
    return end % places.PAGE == 0 and 0 < end - start <= places.PAGE and start <= theirs.cs_base + theirs.rip <= end


def sti(difference: Difference) -> bool:
    """#DB here, after STI or LSS."""
    ours = ours_of(difference, Vector.DB)
    if ours is None or not ours.dr6 & DR6.BS:
        return False
    after = ours.cs_base + ours.rip
    text = difference.first.memory[after - 8 : after]
    return text[-1:] == b"\xfb" or b"\x0f\xb2" in text[:-1]


def vex(difference: Difference) -> bool:
    """#UD there, of VEX."""
    theirs = theirs_of(difference, Vector.UD)
    if theirs is None:
        return False
    text = opcode_of(difference, theirs)[1]
    return text[:1] in (b"\xc4", b"\xc5") and (bool(theirs.efer & EFER.LMA) or text[1] >= 0xC0)


def mask_of_memory(difference: Difference) -> bool:
    """#UD there, of MOVMSKPS, or of a shift of a vector by a constant, with memory."""
    theirs = theirs_of(difference, Vector.UD)
    if theirs is None:
        return False
    text = opcode_of(difference, theirs)[1]
    return text[:2] in (b"\x0f\x50", b"\x0f\x71", b"\x0f\x72", b"\x0f\x73") and text[2] < 0xC0


def three_d_now(difference: Difference) -> bool:
    """#UD there, of 0F 0F."""
    theirs = theirs_of(difference, Vector.UD)
    return theirs is not None and opcode_of(difference, theirs)[1][:2] == b"\x0f\x0f"


def smsw(difference: Difference) -> bool:
    """The upper half of a register is of CR0 there."""
    if only(difference, "rsp") and (pair := pair_of(difference)) is not None and _holds(difference, rb"\x0f\x01\xe4"):
        ours, theirs = pair[0].rsp, pair[1].rsp
    elif (found := _register(difference, rb"\x0f\x01[\xe0-\xe7]")) is not None:
        ours, theirs = found
    else:
        return False
    return (ours ^ theirs) & 0xFFFF == 0 and theirs >> 16 == difference.second.save.cr0 >> 16


def enter(difference: Difference) -> bool:
    """The upper half of EBP differs."""
    if not only(difference, "rbp") or (found := _register(difference, rb"\xc8")) is None:
        return False
    return (found[0] ^ found[1]) & 0xFFFF == 0


def bswap(difference: Difference) -> bool:
    """A register alone differs, in a program with a BSWAP of 16 bits."""
    wide = difference.program.mode in ("real", "pm16", "v86")
    return _register(difference, rb"\x0f[\xc8-\xcf]" if wide else rb"\x66[\x40-\x4f]?\x0f[\xc8-\xcf]") is not None


def string_zero(difference: Difference) -> bool:
    """Zeros in memory here, or flags of what was computed with them, and a #GP of INS before."""
    refused = any(
        record.vector == Vector.GP and opcode_of(difference, record)[1][:1] in (b"\x6c", b"\x6d")
        for record in difference.first.records[: difference.record]
    )
    zeros = (
        difference.record is None
        and len(difference.fields) <= 4
        and all(name.startswith("[") and not ours for name, (ours, _) in difference.fields.items())
    )
    return refused and (zeros or _status(difference))


def loop(difference: Difference) -> bool:
    """Status flags, after LOOPE or LOOPNE."""
    if (pair := pair_of(difference)) is None or not _status(difference):
        return False
    after = pair[0].cs_base + pair[0].rip
    return difference.first.memory[after - 2 : after - 1] in (b"\xe0", b"\xe1")


def early_rex(difference: Difference) -> bool:
    """Anything, in a program of 64-bit code with REX before another prefix."""
    return difference.program.mode == "long" and _holds(difference, _REX_TOO_EARLY)


def _status(difference: Difference) -> bool:
    """Return whether status flags alone differ."""
    if not only(difference, "rflags"):
        return False
    ours, theirs = difference.fields["rflags"]
    return not (ours ^ theirs) & ~RFLAGS.STATUS


def real_paging(difference: Difference) -> bool:
    """CR0 has PG and not PE."""
    pair = pair_of(difference)
    states = [record.cr0 for record in pair] if pair else [difference.first.save.cr0, difference.second.save.cr0]
    return all(cr0 & (CR0.PG | CR0.PE) == CR0.PG for cr0 in states)


def instruction_pointer(difference: Difference) -> bool:
    """IP is beyond 64 KiB, in real or virtual-8086 mode."""
    runs = difference.first, difference.second
    if difference.record is None:
        states = [(run.save.rip, run.save.cr0, run.save.rflags) for run in runs]
    else:
        records = [record for run in runs for record in run.records[difference.record : difference.record + 1]]
        states = [(record.rip, record.cr0, record.rflags) for record in records]
    return any(at >> 16 and (not cr0 & CR0.PE or flags & RFLAGS.VM) for at, cr0, flags in states)


def device(difference: Difference) -> bool:
    """RAX, or some bytes, in a program that reads a port."""
    if difference.record is not None:
        return False
    stored = len(difference.fields) <= 4 and all(
        name.startswith("[") and ours == 0xFF for name, (ours, _) in difference.fields.items()
    )
    return (only(difference, "rax") and _holds(difference, _IN)) or (stored and _holds(difference, _INS))


def _holds(difference: Difference, pattern: bytes) -> bool:
    """Return whether the program's code has bytes like these; whether it executed them is not asked."""
    return re.search(pattern, difference.program.code, re.DOTALL) is not None


def _register(difference: Difference, pattern: bytes) -> tuple[int, int] | None:
    """Return the values of the general register that alone differs in the end, if the code has such bytes."""
    if difference.record is not None or len(difference.fields) != 1 or not _holds(difference, pattern):
        return None
    ((name, values),) = difference.fields.items()
    return values if name.startswith("r") and name not in ("rip", "rflags") else None


def store_to_register(difference: Difference) -> bool:
    """#UD here, of MOVNTQ or MOVNTDQ to a register."""
    ours = ours_of(difference, Vector.UD)
    if ours is None:
        return False
    text = opcode_of(difference, ours)[1]
    return text[:2] == b"\x0f\xe7" and text[2] >= 0xC0


def emms(difference: Difference) -> bool:
    """#UD or #NM here, of EMMS under CR0.EM or CR0.TS."""
    ours = ours_of(difference, Vector.UD) or ours_of(difference, Vector.NM)
    return ours is not None and bool(ours.cr0 & (CR0.EM | CR0.TS)) and opcode_of(difference, ours)[1][:2] == b"\x0f\x77"


def lock(difference: Difference) -> bool:
    """#UD there, of an instruction with LOCK."""
    theirs = theirs_of(difference, Vector.UD)
    return theirs is not None and b"\xf0" in opcode_of(difference, theirs)[0]
