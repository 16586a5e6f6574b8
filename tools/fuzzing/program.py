"""A program: the state of the CPU and the arena it starts with, made of a seed."""

import random
from collections.abc import Callable
from typing import Final, NamedTuple

from trapline.arch.descriptors import CODE_16, DATA_16, DPL_SHIFT, VIRTUAL_8086, SegmentState, flat
from trapline.arch.layout import leaves
from trapline.arch.registers import CR0, CR4, DR6, DR7, EFER, RFLAGS, Gprs
from trapline.arch.reset import DEFAULT_PAT
from trapline.arch.vmcb import SaveArea, load_segment

from . import clean, code, operands, places, tables, values
from .mutations import MUTATIONS
from .tables import BUSY_TSS, LDT, Arena, load

MODES: Final = ("real", "pm16", "pm32", "v86", "long", "compat")
_BITS: Final = {"real": 16, "pm16": 16, "v86": 16, "pm32": 32, "compat": 32, "long": 64}
_CPLS: Final = (0, 0, 0, 3, 3, 3, 1, 2)


class Program(NamedTuple):
    """What the guest starts with."""

    mode: str
    seed: str
    save: bytes
    """A `SaveArea`."""
    gprs: bytes
    """`Gprs`."""
    arena: bytes
    """What is in memory from 0 on."""
    code: bytes
    mutations: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.seed}: {' '.join(self.mutations) or 'no mutation'}; code {self.code.hex(' ')}"


def generate(mode: str, seed: str) -> Program:
    """Return the program of a seed: the same one always."""
    rng = random.Random(f"{mode} {seed}")
    save, arena = SaveArea(), Arena()
    save.cr0, save.efer = CR0.PE | CR0.ET, EFER.SVME
    save.dr6, save.dr7 = DR6.FIXED, DR7.FIXED
    save.g_pat = DEFAULT_PAT
    clean.write(arena)
    _BUILDERS[mode](save, arena, rng)
    _shared(mode, save, arena, rng)
    coder = operands.Coder(rng, _BITS[mode], mode, save.cpl)
    text = code.write(coder)
    arena.write(places.CODE, text)
    gprs = Gprs()
    width = 64 if mode in ("long", "compat") else 32
    for leaf in leaves(gprs):
        setattr(gprs, leaf.path, values.value(rng, mode, save.cpl) & (1 << width) - 1)
    save.rax = values.value(rng, mode, save.cpl) & (1 << width) - 1
    gprs.rax = gprs.rsp = 0
    chosen = rng.choices(MUTATIONS, k=rng.choice((0, 0, 1, 1, 2, 3)))
    for mutate in chosen:
        mutate(mode, save, arena, rng)
    names = tuple(mutate.__name__ for mutate in chosen)
    return Program(mode, f"{mode} {seed}", bytes(save), bytes(gprs), bytes(arena.data), text, names)


def _shared(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Write what every mode has."""
    save.rflags = save.rflags | values.flags(rng) | RFLAGS.ALWAYS_ONE
    if mode != "v86":
        save.rflags &= ~RFLAGS.VM
    save.cr0 |= rng.choice((0, CR0.NE, CR0.NE | CR0.MP))
    save.cr4 |= CR4.OSFXSR | rng.choice((0, CR4.OSXMMEXCPT))
    skip = rng.choice((None, None, None, 1, 2, 2, 3, 4, 5))
    tables.interrupts(mode, arena, save, skip=skip)
    for index in range(8):
        arena.put(places.TSS + 0x68 + index, 0xFE if index == 3 else 0xFF, 1)
    target = places.HANDLERS + places.STUB * 0x80
    save.star = tables.CODE_0 << 35 | tables.CODE_3 << 51 | target
    save.lstar = save.cstar = save.sysenter_eip = target
    save.sfmask = rng.choice((0, 0x4_7700))
    save.sysenter_cs, save.sysenter_esp = tables.CODE_0 << 3, places.TOPS[0]
    for page in (places.USER, places.USER_READ, places.SUPERVISOR, places.SUPERVISOR_READ, places.NO_EXECUTE):
        for start in (0, 0x80, 0xFE8):
            for offset in range(0, 24, 8):
                arena.put(page + start + offset, values.value(rng, mode, save.cpl) & (1 << 64) - 1)


def _real(save: SaveArea, arena: Arena, rng: random.Random) -> None:
    save.cr0 = CR0.ET
    for register, at in ((save.es, 0x2000), (save.ds, 0x2000), (save.fs, 0x1000), (save.gs, 0x2100), (save.ss, 0x1000)):
        load_segment(register, SegmentState(at, DATA_16, 0xFFFF, at << 4))
    load_segment(save.cs, SegmentState(places.CODE >> 4, CODE_16, 0xFFFF, places.CODE))
    load_segment(save.ldtr, flat(0, LDT))
    load_segment(save.tr, flat(0, BUSY_TSS))
    save.gdtr.base, save.gdtr.limit = places.GDT, places.TABLE_LIMIT
    save.rsp = places.TOPS[0] - places.BASE


def _protected(mode: str, pagings: tuple[str, ...]) -> Callable[[SaveArea, Arena, random.Random], None]:
    def build(save: SaveArea, arena: Arena, rng: random.Random) -> None:
        cpl = save.cpl = 3 if mode == "v86" else rng.choice(_CPLS)
        if mode in ("long", "compat"):
            save.efer |= EFER.LME | EFER.LMA
        save.efer |= rng.choice((EFER.NXE, EFER.NXE, 0)) | rng.choice((EFER.SCE, 0))
        save.cr0 |= rng.choice((CR0.WP, CR0.WP, 0)) | rng.choice((0, 0, CR0.AM))
        save.cr4 |= rng.choice((0, 0, CR4.PGE)) | rng.choice((0, 0, 0, CR4.SMEP))
        tables.descriptors(mode, arena, save)
        tables.pages(mode, rng.choice(pagings), arena, save, user_code=cpl == 3)
        if mode == "v86":
            _virtual(save, rng)
            return
        load(mode, save.cs, tables.CODE_0 + 2 * cpl, cpl)
        if mode == "compat":
            base, limit, attributes = tables.segments(mode)[tables.CODE_32_0]
            selector = tables.CODE_0 + 2 * cpl << 3 | cpl
            load_segment(save.cs, SegmentState(selector, attributes | cpl << DPL_SHIFT, limit, base))
        load(mode, save.ss, tables.DATA_0 + 2 * cpl, cpl)
        for register in (save.ds, save.es, save.fs, save.gs):
            load(mode, register, tables.DATA_3, 3)
        base = places.BASE if mode == "pm16" else 0
        save.rip, save.rsp = places.CODE - base, places.TOPS[cpl] - base

    return build


def _virtual(save: SaveArea, rng: random.Random) -> None:
    save.rflags |= RFLAGS.VM | rng.choice((0, RFLAGS.IOPL))
    for register, at in ((save.es, 0x2000), (save.ds, 0x2000), (save.fs, 0x1000), (save.gs, 0x2100), (save.ss, 0x1000)):
        load_segment(register, SegmentState(at, VIRTUAL_8086, 0xFFFF, at << 4))
    load_segment(save.cs, SegmentState(places.CODE >> 4, VIRTUAL_8086, 0xFFFF, places.CODE))
    save.rsp = places.TOPS[3] - places.BASE


_BUILDERS: Final[dict[str, Callable[[SaveArea, Arena, random.Random], None]]] = {
    "real": _real,
    "pm16": _protected("pm16", ("narrow", "pae")),
    "pm32": _protected("pm32", ("narrow", "pae")),
    "v86": _protected("v86", ("narrow", "pae")),
    "long": _protected("long", ("four",)),
    "compat": _protected("compat", ("four",)),
}
