"""A small assembler over iced-x86's encoder: one method call, one instruction.

    code = Assembler(64)
    code.mov(RAX, mem(RSP, 8))
    code.label("again")
    code.dec(ECX)
    code.jne("again")
    blob = code.assemble(0x1000)

The mnemonic and the kinds of the operands choose the encoding; nothing here knows an opcode. ValueError says
that no encoding takes the operands.
"""

from bisect import bisect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, cast

import iced_x86 as iced
from iced_x86 import Instruction, MemoryOperand, OpCodeInfo

from .operands import Mem, Reg

_FIXED: Final = {name: getattr(iced.Register, name) for name in ("AL", "AX", "EAX", "RAX", "CL", "DX")}
_KIND_NAMES: Final = {value: name for name, value in vars(iced.OpCodeOperandKind).items() if isinstance(value, int)}
_IMMEDIATES: Final = {
    "IMM8": (-0x80, 0xFF), "IMM8SEX16": (-0x80, 0x7F), "IMM8SEX32": (-0x80, 0x7F), "IMM8SEX64": (-0x80, 0x7F),
    "IMM16": (-0x8000, 0xFFFF), "IMM32": (-0x8000_0000, 0xFFFF_FFFF),
    "IMM32SEX64": (-0x8000_0000, 0x7FFF_FFFF), "IMM64": (0, (1 << 64) - 1),
}  # fmt: skip
_BOUNDS: Final = sorted({bound for low, high in _IMMEDIATES.values() for bound in (low, high + 1)})

_MEMORY: Final = {name.format(size): size for size in (0, 8, 16, 32, 64) for name in ("R{}_OR_MEM", "MEM{}")}
_MEMORY["XMM_OR_MEM"] = 128
"""The size of what a kind finds in memory; `_encodings` appends it to a plain MEM."""
_ADDRESSES: Final = ("IMM32", "IMM64")
"""The kinds of immediates that the address of a label can be."""
_SIZES: Final = ("", "W", "D", "Q", "NW", "ND", "NQ")
"""What iced's names of codes have after the mnemonic; N is a near return."""
_FORMS: Final = ("REG", "OPCODE", "OR_MEM", "RM")
"""Suffixes of the names of operand kinds after a register's kind."""

Operand = Reg | Mem | int | str


class _Encoding(NamedTuple):
    info: OpCodeInfo
    kinds: tuple[str, ...]
    """iced's names of what each operand may be."""


@cache
def _codes() -> dict[str, list[int]]:
    """Return iced's codes by the first word of their names: a mnemonic, with or without the address size."""
    table: dict[str, list[int]] = {}
    for name, code in vars(iced.Code).items():
        if isinstance(code, int):
            table.setdefault(name.partition("_")[0], []).append(code)
    return table


@cache
def _encodings(mnemonic: str, bits: int) -> tuple[_Encoding, ...]:
    """Return the encodings of a mnemonic in code of a size, in iced's order."""
    number = getattr(iced.Mnemonic, mnemonic.upper(), None)
    codes = [code for size in _SIZES for code in _codes().get(mnemonic.upper() + size, ())]
    branch = f"BR{bits}_{4 if bits > 16 else 2}"
    found = []
    for code in codes:
        info = OpCodeInfo(cast("Any", code))
        mode = {16: info.mode16, 32: info.mode32, 64: info.mode64}[bits]
        if info.mnemonic == number and mode and info.address_size in (0, bits):
            names = (_KIND_NAMES[kind] for kind in info.op_kinds())
            kinds = tuple(f"MEM{info.operand_size}" if name == "MEM" else name for name in names)
            if not any(kind.startswith("BR") and kind != branch for kind in kinds):
                found.append(_Encoding(info, kinds))
    return tuple(found)


def _takes(kind: str, operand: Operand) -> bool:
    if isinstance(operand, str):
        return kind.startswith("BR") or kind in _ADDRESSES
    if isinstance(operand, int):
        low, high = _IMMEDIATES.get(kind, (1, 0))
        return low <= operand <= high
    if isinstance(operand, Mem):
        return kind in _MEMORY and operand.size in (None, _MEMORY[kind])
    if kind in _FIXED:
        return bool(_FIXED[kind] == operand.number)
    start, _, form = kind.partition("_")
    return start == operand.kind and form.startswith(_FORMS)


def _representative(operand: Operand) -> Operand:
    """Return one of the operands for which the same encoding is chosen."""
    if isinstance(operand, str):
        return ""
    if isinstance(operand, int):
        place = bisect(_BOUNDS, operand)
        return _BOUNDS[place - 1] if place else _BOUNDS[0] - 1
    return Mem(None, size=operand.size) if isinstance(operand, Mem) else operand


@cache
def _chosen(mnemonic: str, bits: int, operands: tuple[Operand, ...]) -> _Encoding | None:
    """Return the encoding for operands in code of a size; None: there is none."""
    fitting = [
        encoding
        for encoding in _encodings(mnemonic, bits)
        if len(encoding.kinds) == len(operands) and all(map(_takes, encoding.kinds, operands))
    ]
    if all(isinstance(operand, int) for operand in operands):
        # PUSH 1 and RET have no size of their own: use the one without a prefix.
        fitting.sort(key=lambda encoding: encoding.info.operand_size not in (0, _default_size(encoding.info, bits)))
    return fitting[0] if fitting else None


def _default_size(info: OpCodeInfo, bits: int) -> int:
    return 32 if bits == 64 and not info.default_op_size64 else bits


class Assembler:
    """Collects instructions of one code size (16, 32 or 64) and encodes them as a block."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._lines: list[tuple[_Encoding, tuple[Operand, ...]]] = []
        self._labels: dict[str, int] = {}
        self._names_addresses = False

    def __getattr__(self, mnemonic: str) -> Callable[..., None]:
        """Return the method that emits `mnemonic`; Python's keywords take an underscore, as in `and_`."""
        name = mnemonic.removesuffix("_")
        if not any(_encodings(name, bits) for bits in (self._bits, 16, 32, 64)):
            raise AttributeError(mnemonic)
        return lambda *operands: self._emit(name, operands)

    def label(self, name: str) -> None:
        """Name the next instruction; a branch may use the name before or after."""
        if name in self._labels:
            raise ValueError(f"label {name} is defined twice")
        self._labels[name] = len(self._lines)

    def far_jump(self, selector: int, offset: int) -> None:
        """Emit JMP ptr16:32."""
        self._lines.append((_Encoding(OpCodeInfo(iced.Code.JMP_PTR1632), ()), (selector, offset)))

    def assemble(self, address: int) -> bytes:
        """Return the machine code for the given linear address."""
        return self._encode(address, self.labels(address) if self._names_addresses else {})

    def labels(self, address: int) -> dict[str, int]:
        """Return the linear address of every label."""
        # Which addresses instructions hold does not change their lengths.
        decoder = iced.Decoder(self._bits, self._encode(address, {}), ip=address)
        places = [instruction.ip for instruction in decoder]
        return {name: places[place] for name, place in self._labels.items()}

    def _encode(self, address: int, labels: Mapping[str, int]) -> bytes:
        encoder = iced.BlockEncoder(self._bits)
        for place, (encoding, operands) in enumerate(self._lines):
            branch = encoding.kinds[:1] and encoding.kinds[0].startswith("BR")
            resolved = [self._resolve(operand, {} if branch else labels) for operand in operands]
            instruction = _create(encoding, resolved)
            instruction.ip = _ip(place)
            encoder.add(instruction)
        return bytes(encoder.encode(address))

    def _resolve(self, operand: Operand, labels: Mapping[str, int]) -> Operand:
        """Return the value of a label: its address where it is known, else what the block encoder follows."""
        if not isinstance(operand, str):
            return operand
        if operand not in self._labels:
            raise ValueError(f"no label {operand}")
        return labels.get(operand, _ip(self._labels[operand]))

    def _emit(self, mnemonic: str, operands: tuple[Operand, ...]) -> None:
        chosen = _chosen(mnemonic, self._bits, tuple(map(_representative, operands)))
        if chosen is None:
            raise ValueError(f"no encoding in {self._bits}-bit code: {mnemonic} {operands}")
        pairs = zip(chosen.kinds, operands, strict=True)
        self._names_addresses |= any(isinstance(operand, str) and kind in _ADDRESSES for kind, operand in pairs)
        self._lines.append((chosen, operands))


def _ip(place: int) -> int:
    return 0x1000 + place  # any distinct numbers: the block encoder follows them to the real addresses


def _create(encoding: _Encoding, operands: list[Operand]) -> Instruction:
    """Build iced's instruction; its constructors are named by what each operand is."""
    info, kinds = encoding
    values: list[Any] = list(operands)
    if info.code == iced.Code.JMP_PTR1632:
        return Instruction.create_far_branch(info.code, *values)
    if kinds and kinds[0].startswith("BR"):
        return Instruction.create_branch(info.code, *values)
    words: list[str] = []
    values.clear()
    for kind, operand in zip(kinds, operands, strict=True):
        if isinstance(operand, Reg):
            words.append("reg")
            values.append(operand.number)
        elif isinstance(operand, Mem):
            words.append("mem")
            values.append(_memory(operand))
        else:
            words.append("u64" if kind == "IMM64" else "i32" if int(operand) < 0 else "u32")
            values.append(operand)
    make = getattr(Instruction, "_".join(["create", *words]) if words else "create")
    return make(info.code, *values)  # type: ignore[no-any-return]  # chosen by name


def _memory(operand: Mem) -> MemoryOperand:
    base, index, segment = (
        cast("Any", register.number if register else iced.Register.NONE)
        for register in (operand.base, operand.index, operand.segment)
    )
    width = 0 if operand.base and not operand.displacement else 1
    return MemoryOperand(base, index, operand.scale, operand.displacement, width, False, segment)
