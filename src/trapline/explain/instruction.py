"""The instruction at RIP, with the values of its operands."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from trapline.arch.bits import M32, M64
from trapline.arch.layout import Structure
from trapline.arch.paging import PAGE
from trapline.machine.linear import LONGEST, stack_address

from .attempt import Attempt
from .evidence import Evidence

_STACK_VALUES: Final = 16
_ORDER: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


Namer: TypeAlias = Callable[[int], str | None]
"""Returns the name of a linear address, as `memset+0x1a`; None: it has no name."""


class Operand(NamedTuple):
    """A memory operand."""

    address: int
    """Linear."""
    size: int
    """In bytes; 0: it has none."""
    segment: str
    """The segment register, as ds."""
    offset: int
    """In the segment."""


def code_bytes(attempt: Attempt) -> bytes:
    """Return up to 15 bytes at CS:RIP: fewer before a page that is not mapped."""
    return _mapped(attempt, attempt.rip, LONGEST)


def stack_top(attempt: Attempt) -> list[int]:
    """Return the 16 values of 8 bytes at SS:RSP: fewer before a page that is not mapped."""
    data = _mapped(attempt, stack_address(attempt.save), 8 * _STACK_VALUES)
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) - 7, 8)]


def _mapped(attempt: Attempt, gva: int, size: int) -> bytes:
    """Return up to `size` bytes, a page at most: fewer before a page that is not mapped."""
    here = min(size, PAGE - gva % PAGE)
    data = b""
    for start, length in ((gva, here), (gva + here, size - here)):
        gpa = attempt.translate(start) if length else None
        if gpa is None:
            break
        data += attempt.memory.read(gpa, length).to_bytes(length, "little")
    return data


@cache
def _features() -> dict[int, str]:
    """Return iced's names of CPUID features by its numbers."""
    import iced_x86 as iced

    return {value: name for name, value in vars(iced.CpuidFeature).items() if isinstance(value, int)}


class Instruction:
    """The instruction at CS:RIP, decoded."""

    def __init__(self, attempt: Attempt, evidence: Evidence, namer: Namer | None = None) -> None:
        import iced_x86 as iced

        from trapline.asm.decoder import new_decoder

        self.attempt, self._gprs, self.cpuid, self.namer = attempt, evidence.gprs, evidence.cpuid, namer
        self._iced: Any = iced  # its stubs want numbers of their own types
        self.bits = attempt.bits
        self.decoded: Any = new_decoder(code_bytes(attempt), attempt.bits, attempt.rip).decode()

    @property
    def valid(self) -> bool:
        """Whether the bytes are an instruction."""
        return bool(self.decoded.mnemonic != self._iced.Mnemonic.INVALID)

    @property
    def name(self) -> str:
        """The mnemonic without prefixes, as movaps; retf of a far return."""
        whole = self.whole_name
        return "retf" if whole == "ret far" else whole.split()[0]

    @property
    def whole_name(self) -> str:
        """The mnemonic and what else a formatter counts to it, as jmp far."""
        formatter = self._iced.Formatter(self._iced.FormatterSyntax.INTEL)
        return str(formatter.format_mnemonic(self.decoded, self._iced.FormatMnemonicOptions.NO_PREFIXES))

    @property
    def features(self) -> set[str]:
        """The CPUID features that it needs, by iced's names."""
        names = _features()
        return {names[feature] for feature in self.decoded.cpuid_features()}

    @property
    def is_sse(self) -> bool:
        """Whether it is an SSE instruction, encoded without VEX, XOP or EVEX."""
        legacy = self.decoded.encoding == self._iced.EncodingKind.LEGACY
        return legacy and any(feature.startswith(("SSE", "SSSE")) for feature in self.features)

    @property
    def needs_alignment(self) -> bool:
        """Whether its memory operand must be aligned to 16 bytes."""
        from trapline.asm.alignment import needs_alignment

        return needs_alignment(self.decoded)

    @property
    def is_avx(self) -> bool:
        """Whether it is an AVX instruction, of any version."""
        return any(feature.startswith("AVX") for feature in self.features)

    @property
    def is_privileged(self) -> bool:
        """Whether it raises #GP above CPL 0."""
        return bool(self.decoded.is_privileged)

    def reads_memory(self, instruction: Any) -> bool:  # noqa: ANN401  # as iced has it
        """Whether an instruction has a second operand in memory that it reads: LEA does not."""
        memory = instruction.op_count > 1 and instruction.op_kind(1) == self._iced.OpKind.MEMORY
        return bool(memory and instruction.mnemonic != self._iced.Mnemonic.LEA)

    @property
    def rsp_number(self) -> int:
        """The number of RSP."""
        return int(self._iced.Register.RSP)

    def place(self, address: int) -> str:
        """Return an address with its name, if it has one."""
        name = None if self.namer is None else self.namer(address)
        return f"{address:#x}" if name is None else f"{address:#x}, {name}"

    @property
    def ecx(self) -> int:
        """The number of the MSR for RDMSR and WRMSR."""
        return self._gprs.rcx & 0xFFFF_FFFF

    @property
    def edx_eax(self) -> int:
        """The value of WRMSR and XSETBV."""
        return (self._gprs.rdx & 0xFFFF_FFFF) << 32 | self.attempt.save.rax & 0xFFFF_FFFF

    @property
    def popped(self) -> int:
        """How many bytes it takes from the stack, without those of an immediate operand."""
        immediate = self.decoded.immediate16 if self.decoded.op_count and self.name == "retf" else 0
        return max(int(self.decoded.stack_pointer_increment) - immediate, 0)

    @property
    def unchecked(self) -> Any:  # noqa: ANN401  # as iced has it
        """What the bytes would be if each operand and prefix were allowed."""
        return self._iced.Decoder(
            self.bits, code_bytes(self.attempt), self._iced.DecoderOptions.NO_INVALID_CHECK, ip=self.attempt.rip
        ).decode()

    @property
    def is_far(self) -> bool:
        """Whether it loads CS: a far jump, call or return, or IRET."""
        return self.whole_name.endswith(" far") or self.name.startswith("iret")

    @property
    def far_selector(self) -> int | None:
        """The selector in the instruction, of a far jump or call to a pointer; None: it has none."""
        i, kinds = self.decoded, self._iced.OpKind
        far = i.op_count and i.op_kind(0) in (kinds.FAR_BRANCH16, kinds.FAR_BRANCH32)
        return int(i.far_branch_selector) if far else None

    @property
    def moves_to_cs(self) -> bool:
        """Whether it is a MOV to CS, which is not an instruction."""
        i, iced = self.unchecked, self._iced
        return bool(i.mnemonic == iced.Mnemonic.MOV and i.op0_register == iced.Register.CS)

    @property
    def segment_operand(self) -> str | None:
        """The segment register that it loads, as ds."""
        i = self.decoded
        if not i.op_count or i.op_kind(0) != self._iced.OpKind.REGISTER:
            return None
        return self._segments.get(i.op_register(0))

    @property
    def control(self) -> str | None:
        """The control register that is its first operand, as CR4."""
        i, register = self.decoded, self._iced.Register
        if not i.op_count or i.op_kind(0) != self._iced.OpKind.REGISTER:
            return None
        number = i.op_register(0) - register.CR0
        return f"CR{number}" if 0 <= number <= 8 else None

    def register(self, number: int) -> int | None:
        """Return a general register by iced's number, with the width that the number names."""
        ext, register = self._iced.RegisterExt, self._iced.Register
        if number == register.NONE:
            return 0
        if number in (register.RIP, register.EIP):
            return 0  # iced's displacement is the address already
        if not ext.is_gpr(number):
            return None
        high = register.AH <= number <= register.BH
        name = _ORDER[ext.number(ext.full_register(number))]
        area: Structure = self.attempt.save if name in ("rax", "rsp") else self._gprs
        value = int(getattr(area, name)) >> (8 if high else 0)
        return value & (1 << 8 * int(ext.size(number))) - 1

    def holders(self, value: int) -> list[str]:
        """Return the names of the general registers but the stack pointer that have a value, as RAX or EAX."""
        wide = self.bits == 64
        names = [name for name in (_ORDER if wide else _ORDER[:8]) if name != "rsp"]
        areas: dict[str, Structure] = {"rax": self.attempt.save}
        found = [name for name in names if getattr(areas.get(name, self._gprs), name) & (M64 if wide else M32) == value]
        return [(name if wide else f"e{name[1:]}").upper() for name in found]

    def operands(self) -> Iterator[Operand]:
        """Yield the explicit memory operand, if there is one; LEA, NOP and INVLPG access none."""
        i, iced = self.decoded, self._iced
        if i.mnemonic in (iced.Mnemonic.LEA, iced.Mnemonic.NOP, iced.Mnemonic.INVLPG):
            return
        for number in range(i.op_count):
            if i.op_kind(number) != iced.OpKind.MEMORY:
                continue
            base, index = self.register(i.memory_base), self.register(i.memory_index)
            if base is None or index is None:
                continue
            offset = base + index * i.memory_index_scale + i.memory_displacement
            width = 64 if self.bits == 64 else 32
            if self.bits == 16 and not base >> 16:
                width = 16
            offset &= (1 << width) - 1
            name = self._segments[i.memory_segment]
            address = self._base(name) + offset & self.attempt.space.mask
            yield Operand(address, iced.MemorySizeInfo(i.memory_size).size, name, offset)

    @property
    def _segments(self) -> dict[int, str]:
        """The names of the segment registers by iced's numbers."""
        return {getattr(self._iced.Register, name.upper()): name for name in ("es", "cs", "ss", "ds", "fs", "gs")}

    def _base(self, name: str) -> int:
        if self.bits == 64 and name not in ("fs", "gs"):
            return 0
        return int(getattr(self.attempt.save, name).base)

    def value(self, number: int) -> int | None:
        """Return an operand's value: of a register, an immediate, or memory."""
        i, iced = self.decoded, self._iced
        kind = i.op_kind(number)
        if kind == iced.OpKind.REGISTER:
            return self.register(i.op_register(number))
        if kind == iced.OpKind.MEMORY:
            operand = next(self.operands(), None)
            return None if operand is None else self.attempt.read(operand.address, min(operand.size or 1, 8))
        return None

    def stack(self, number: int, width: int) -> int | None:
        """Return a value of the stack, counted from RSP in units of `width` bytes."""
        return self.attempt.read(stack_address(self.attempt.save) + number * width, width)
