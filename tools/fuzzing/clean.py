"""What the VMCB does not hold is made the same before each program: x87, SSE, debug registers and the PICs."""

import struct
from typing import Final

from trapline.arch.descriptors import CODE_64, DATA_32, flat
from trapline.arch.paging import PS, RW, A, D, P
from trapline.arch.registers import CR0, CR4, DR6, DR7, EFER, RFLAGS, Gprs
from trapline.arch.vmcb import SaveArea, load_segment

from . import places
from .tables import BUSY_TSS, LDT, Arena

_FXRSTOR: Final = b"\x0f\xae\x0c\x25" + struct.pack("<I", places.CLEAN_IMAGE)
_CODE: Final = b"".join(
    (
        b"\xfc\xf3\x48\xa5",  # cld; rep movsq: what is written from outside becomes new code
        b"\xdb\xe3",  # fninit
        _FXRSTOR,
        b"\xb0\xff\xe6\x21\xe6\xa1",  # mov al, 0xff; out 0x21, al; out 0xa1, al: no interrupts
        b"\x31\xc0",  # xor eax, eax
        *(bytes((0x0F, 0x23, 0xC0 | number << 3)) for number in range(4)),  # mov drN, rax
        b"\xf4",
    )
)
_FCW: Final = 0x37F
_MXCSR: Final = 0x1F80


def write(arena: Arena) -> None:
    """Write code and tables."""
    arena.put(places.CLEAN, places.CLEAN + places.PAGE | P | RW | A)
    arena.put(places.CLEAN + places.PAGE, P | RW | A | D | PS)
    arena.write(places.CLEAN_CODE, _CODE)
    arena.write(places.CLEAN_IMAGE, bytes(512))
    arena.put(places.CLEAN_IMAGE, _FCW, 2)
    arena.put(places.CLEAN_IMAGE + 24, _MXCSR, 4)


def registers(*, rewrite: bool) -> bytes:
    """Return the `Gprs` to run it with; `rewrite`: the guest writes all that is not of this module once more."""
    gprs = Gprs()
    gprs.rcx = places.CLEAN // 8 if rewrite else 0
    return bytes(gprs)


def state() -> bytes:
    """Return the `SaveArea` to run the code with: 64-bit mode, everything mapped."""
    save = SaveArea()
    save.cr0 = CR0.PE | CR0.PG | CR0.ET
    save.cr3, save.cr4 = places.CLEAN, CR4.PAE | CR4.OSFXSR
    save.efer = EFER.SVME | EFER.LME | EFER.LMA
    save.dr6, save.dr7, save.rflags = DR6.FIXED, DR7.FIXED, RFLAGS.ALWAYS_ONE
    load_segment(save.cs, flat(8, CODE_64))
    for register in (save.ss, save.ds, save.es, save.fs, save.gs):
        load_segment(register, flat(16, DATA_32))
    load_segment(save.ldtr, flat(0, LDT))
    load_segment(save.tr, flat(0, BUSY_TSS))
    save.rip = places.CLEAN_CODE
    return bytes(save)
