"""The firmware that QEMU starts: the user's BIOS with its first jump redirected to an entry below it.

    4 GiB - size   entry: GDT, code that enters long mode with SVM and jumps to the monitor
    4 GiB - BIOS   the BIOS as it is, but for the reset vector and 30 bytes in a hole of its last 64 KiB

The guest then starts at the BIOS's own first instruction, as after a reset.
"""

import struct
from typing import Final, NamedTuple

from trapline.arch import cpuid
from trapline.arch.bits import M16
from trapline.arch.descriptors import CODE_32, CODE_64, DATA_32
from trapline.arch.encode import flat_descriptor, pseudo_descriptor
from trapline.arch.layout import offset_of
from trapline.arch.msr import EFER as EFER_MSR
from trapline.arch.paging import PAGE
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.reset import RESET_VECTOR
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import (
    AL,
    AX,
    CS,
    DS,
    DX,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    ES,
    ESI,
    RAX,
    RBX,
    RCX,
    RDI,
    RSI,
    SS,
    Mem,
    Reg,
)
from trapline.errors import UsageError

from . import layout, pci, unlock
from .layout import Owner

_TOP: Final = 1 << 32
_ENTRY_SIZE: Final = 0x10000
_GDT, _CODE32, _CODE64 = range(0, 3 * PAGE, PAGE)
_NO_IDT: Final = 0x800
"""Zeros: the operand of a LIDT after which no exception can be delivered."""

DESCRIPTORS: Final = (0, *map(flat_descriptor, (CODE_32, DATA_32, CODE_64)))
"""Null, flat 32-bit code, flat data, 64-bit code."""
CODE32: Final = 0x08
DATA: Final = 0x10
CODE64: Final = 0x18

_LARGEST_BIOS: Final = 1 << 20
"""Bytes: it is copied below 1 MiB."""
_FIRMWARE_VOLUME: Final = b"_FVH"
"""The signature of a firmware volume (UEFI Platform Initialization, vol. 3, 3.2.1)."""
_RESET_VECTOR: Final = RESET_VECTOR & M16
_SEGMENT: Final = 0x10000
_FAR_JUMP: Final = 0xEA
_NEAR_JUMP: Final = 0xE9


class Firmware(NamedTuple):
    """The image for QEMU, and what was changed in the BIOS."""

    image: bytes
    bios: bytes
    """The BIOS as it came."""
    patches: tuple[tuple[int, bytes], ...]
    """(offset from the BIOS's start, our bytes) for each place that differs."""
    start: tuple[int, int] | None
    """Selector and offset of the BIOS's first jump, where it is a far one."""


def wrap(bios: bytes, *, unlock_svm: bool) -> Firmware:
    """Put the entry below the BIOS and redirect the reset vector to it.

    `unlock_svm`: set EFER.SVME on a CPU whose CPUID shows no SVM. Raises UsageError for an image that is not a PC
    BIOS.
    """
    if len(bios) < _SEGMENT or len(bios) % _SEGMENT:
        raise UsageError(f"the BIOS image has {len(bios)} bytes; a PC BIOS is a multiple of 64 KiB")
    if _FIRMWARE_VOLUME in bios or len(bios) > _LARGEST_BIOS:
        what = "UEFI firmware" if _FIRMWARE_VOLUME in bios else f"firmware of {len(bios) / (1 << 20):g} MiB"
        raise UsageError(f"{what}, which is not supported yet: only a PC BIOS is, of 1 MiB at most")
    base = _TOP - len(bios) - _ENTRY_SIZE
    last = len(bios) - _SEGMENT
    size = len(_trampoline(0, base))
    hole = bios.rfind(bytes(size), last, last + _RESET_VECTOR)
    if hole < 0:
        raise UsageError(f"the BIOS image has no hole of {size} bytes in its last 64 KiB for the entry; SeaBIOS has")
    trampoline = _trampoline(hole - last, base)
    relative = (hole - last - _RESET_VECTOR - 3) & 0xFFFF
    patches = ((hole, trampoline), (last + _RESET_VECTOR, struct.pack("<BH", _NEAR_JUMP, relative)))
    patched = bytearray(bios)
    for offset, data in patches:
        patched[offset : offset + len(data)] = data
    opcode, offset, selector = struct.unpack_from("<BHH", bios, last + _RESET_VECTOR)
    start = (selector, offset) if opcode == _FAR_JUMP else None
    return Firmware(_entry(base, unlock_svm) + bytes(patched), bios, patches, start)


def _trampoline(offset: int, base: int) -> bytes:
    """From the reset vector in real mode to 32-bit protected mode; the GDT's operand follows the code."""
    blob = b""
    for _ in range(2):  # the operand's address depends on the code's length
        code = Assembler(16)
        code.lgdt(Mem(None, offset + len(blob) or 0x1000, segment=CS, size=32))
        code.mov(EAX, operands.CR0)
        code.or_(EAX, CR0.PE)
        code.mov(operands.CR0, EAX)
        code.far_jump(CODE32, base + _CODE32)
        blob = code.assemble(offset)
    return blob + pseudo_descriptor(base + _GDT, len(DESCRIPTORS) * 8 - 1, bits=16)


def _entry(base: int, unlock_svm: bool) -> bytes:
    blob = bytearray(_ENTRY_SIZE)
    struct.pack_into("<4Q", blob, _GDT, *DESCRIPTORS)
    for offset, code in ((_CODE32, _protected_mode(base, unlock_svm)), (_CODE64, _long_mode(unlock_svm))):
        machine_code = code.assemble(base + offset)
        blob[offset : offset + len(machine_code)] = machine_code
    return bytes(blob)


def _protected_mode(base: int, unlock_svm: bool) -> Assembler:
    """Map the shared memory and enter long mode. EDX: the CPU's signature, as RESET left it.

    EBX is then the high half of the shared memory's address.
    """
    code = Assembler(32)
    code.mov(EBP, EDX)
    code.mov(EAX, DATA)
    for segment in (DS, ES, SS):
        code.mov(segment, AX)
    if unlock_svm:
        unlock.make_init_a_reset(code, no_idt=base + _NO_IDT)
    for register, value in ((pci.BAR2, layout.LOW_BASE), (pci.BAR2 + 4, 0), (pci.COMMAND, pci.MEMORY_ENABLE)):
        _configure(code, register, value)
    _ask_for_place(code)
    _leave_token(code)
    code.mov(ESI, layout.ENTRY_TABLES_RAM)
    code.mov(EDI, layout.LOW_BASE + layout.ENTRY_TABLES_AT)
    code.mov(ECX, layout.ENTRY_TABLES_SIZE // 4)
    _swap(code, ESI, EDI, ECX, EAX)
    _configure(code, pci.BAR2 + 4, EBX)
    _configure(code, pci.BAR2, 0)
    code.mov(EAX, CR4.PAE)
    code.mov(operands.CR4, EAX)
    code.mov(EAX, layout.ENTRY_TABLES_RAM)
    code.mov(operands.CR3, EAX)
    code.mov(ECX, EFER_MSR)
    code.rdmsr()
    code.or_(EAX, EFER.LME | (0 if unlock_svm else EFER.SVME))
    code.wrmsr()
    code.mov(EAX, operands.CR0)
    code.and_(EAX, 0xFFFF_FFFF & ~(CR0.CD | CR0.NW))
    code.or_(EAX, CR0.PG)
    code.mov(operands.CR0, EAX)
    code.far_jump(CODE64, base + _CODE64)
    return code


def _configure(code: Assembler, register: int, value: int | Reg) -> None:
    """Write a configuration register of the shared memory's device."""
    code.mov(DX, pci.CONFIG_ADDRESS)
    code.mov(EAX, pci.address(pci.MONITOR_DEVICE, register))
    code.out(DX, EAX)
    code.mov(DX, pci.CONFIG_DATA)
    code.mov(EAX, value)
    code.out(DX, EAX)


def _ask_for_place(code: Assembler) -> None:
    """Describe the CPU in the mailbox, and wait for the high half of the shared memory's address, in EBX then."""
    code.mov(EDI, layout.LOW_BASE + layout.MAILBOX_AT)
    code.mov(EAX, cpuid.LARGEST_EXTENDED)
    code.cpuid()
    code.mov(ESI, EAX)
    for field in ("features", "address_bits"):
        code.mov(_low(field, 32), 0)
    for function, register, field in ((cpuid.EXTENDED, EDX, "features"), (cpuid.SIZES, EAX, "address_bits")):
        code.cmp(ESI, function)
        code.jb("described")
        code.mov(EAX, function)
        code.cpuid()
        code.mov(_low(field), register)
    code.label("described")
    code.mov(_low("placing", 32), 1)
    code.mov(ECX, Owner.HOST.value)
    code.xchg(_low("owner"), ECX)
    code.mov(DX, layout.DOORBELL_PORT)
    code.out(DX, AL)
    code.label("placing")
    code.pause()
    code.cmp(_low("owner", 32), Owner.HOST.value)
    code.je("placing")
    code.mov(EBX, _low("base_high"))


def _low(field: str, size: int | None = None) -> Mem:
    """Return the operand for a field of the mailbox before the shared memory has its place; EDI is its address."""
    return Mem(EDI, offset_of(layout.Mailbox, field), size=size)


def _leave_token(code: Assembler) -> None:
    """Write the token into the guest's RAM, if there is one; EDI is the address of the mailbox."""
    for number in range(2):
        code.mov(EAX, Mem(EDI, offset_of(layout.Mailbox, "token") + 4 * number))
        code.cmp(EAX, 0)
        code.je("found")
        code.mov(Mem(None, layout.TOKEN_AT + 4 * number), EAX)
    code.label("found")


def _swap(code: Assembler, one: Reg, other: Reg, count: Reg, passing: Reg) -> None:
    """Exchange the contents of two places in memory, of `count` times as many bytes as `passing` has."""
    size = 8 if passing == RAX else 4
    code.label("swap")
    first, second = (Mem(place, -size, index=count, scale=size) for place in (one, other))
    code.mov(passing, first)
    code.xchg(second, passing)
    code.mov(first, passing)
    code.dec(count)
    code.jne("swap")


def _long_mode(unlock_svm: bool) -> Assembler:
    """Take the monitor's page tables, give the RAM of the others back, and jump to the monitor."""
    code = Assembler(64)
    code.shl(RBX, 32)
    code.lea(RAX, Mem(RBX, layout.PML4_AT))
    code.mov(operands.CR3, RAX)
    code.mov(RSI, layout.ENTRY_TABLES_RAM)
    code.lea(RDI, Mem(RBX, layout.ENTRY_TABLES_AT))
    code.mov(RCX, layout.ENTRY_TABLES_SIZE // 8)
    _swap(code, RSI, RDI, RCX, RAX)
    if unlock_svm:
        unlock.set_svme(code)
    code.mov(ESI, EBP)
    code.lea(RAX, Mem(RBX, layout.CODE_AT))
    code.jmp(RAX)
    return code
