"""Declare a hardware structure once: name, width and offset on one line.

    @layout(size=0x10)
    class Segment(Structure):
        selector: u16 = at(0x0)
        attributes: u16 = at(0x2)
        limit: u32 = at(0x4)
        base: u64 = at(0x8)

The class is a ctypes structure: `Segment.from_buffer(memory, offset)` is a view, not a copy. To a type
checker each integer field is an `int`. Gaps become reserved fields named by their offset, as in
`reserved_0x018`; an overlap or overrun is a ValueError when the module is imported.
"""

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    NamedTuple,
    Protocol,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

u8 = Annotated[int, ctypes.c_uint8]
u16 = Annotated[int, ctypes.c_uint16]
u32 = Annotated[int, ctypes.c_uint32]
u64 = Annotated[int, ctypes.c_uint64]

if TYPE_CHECKING:
    from typing import Self

    from _typeshed import ReadableBuffer, WriteableBuffer

    class Structure:
        """What a type checker may know of a layout: no attribute beyond the declared ones."""

        @classmethod
        def from_buffer(cls, source: WriteableBuffer, offset: int = 0, /) -> Self:
            """View the bytes of a writable buffer."""

        @classmethod
        def from_buffer_copy(cls, source: ReadableBuffer, offset: int = 0, /) -> Self:
            """Copy the bytes of a buffer."""

        def __buffer__(self, flags: int, /) -> memoryview: ...
else:
    Structure = ctypes.LittleEndianStructure

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}

_S = TypeVar("_S", bound=Structure)
_T = TypeVar("_T")


class Array(Protocol[_T]):
    """A fixed number of equal elements: `insn_bytes: Array[u8] = at(0xD1, count=15)`."""

    def __getitem__(self, index: int, /) -> _T: ...
    def __setitem__(self, index: int, value: _T, /) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_T]: ...


class Leaf(NamedTuple):
    """One integer of a structure, found by `leaves`."""

    path: str
    offset: int
    size: int
    value: int


class _At(NamedTuple):
    offset: int
    length: int | None


def at(offset: int, *, count: int | None = None) -> Any:
    """Place the annotated field at `offset` bytes; `count` is for arrays."""
    # Any, like dataclasses.field: the annotation, not this value, is the field's static type.
    return _At(offset, count)


def layout(*, size: int) -> Callable[[type[_S]], type[_S]]:
    """Lay the decorated class out in exactly `size` bytes."""

    def build(cls: type[_S]) -> type[_S]:
        fields: list[tuple[str, Any]] = []
        end = 0
        for name, place, kind in sorted(_declared(cls), key=lambda field: field[1].offset):
            if place.offset < end:
                before = fields[-1][0]
                raise ValueError(f"{cls.__name__}.{name} at {place.offset:#x} overlaps {before}, up to {end:#x}")
            if place.offset > end:
                fields.append(_reserved(end, place.offset))
            fields.append((name, kind))
            end = place.offset + ctypes.sizeof(kind)
        if end > size:
            raise ValueError(f"{cls.__name__}.{fields[-1][0]} ends at {end:#x}, beyond the size {size:#x}")
        if end < size:
            fields.append(_reserved(end, size))
        raw = cast("Any", cls)
        raw._pack_ = 1
        raw._layout_ = "ms"  # Python 3.14 wants the packing rule named; earlier ones ignore it
        raw._fields_ = fields
        return cls

    return build


def offset_of(cls: type[Structure], path: str) -> int:
    """Return the offset of a field by its dotted path, as in `offset_of(Vmcb, "save.cs.selector")`."""
    return _find(cls, path)[0]


def size_of(cls: type[Structure], path: str = "") -> int:
    """Return the size in bytes of a structure, or of its field at a dotted path."""
    return _find(cls, path)[1] if path else ctypes.sizeof(cast("Any", cls))


def packer(cls: type[Structure]) -> tuple[struct.Struct, tuple[str, ...]]:
    """Return what packs all fields of a flat structure at once, and their names in that order."""
    names = [name for name, _ in _fields(cls) if not name.startswith("reserved_")]
    codes = [
        f"{ctypes.sizeof(kind)}x" if name.startswith("reserved_") else _CODES[ctypes.sizeof(kind)]
        for name, kind in _fields(cls)
    ]
    return struct.Struct("<" + "".join(codes)), tuple(names)


def gatherer(cls: type[Structure], paths: Sequence[str]) -> tuple[struct.Struct, int]:
    """Return what unpacks integers of a structure at once, and the offset where it starts.

    The dotted paths come in the order of their offsets.
    """
    at = start = offset_of(cls, paths[0])
    codes = []
    for path in paths:
        offset, size = _find(cls, path)
        codes.append(f"{offset - at}x{_CODES[size]}")
        at = offset + size
    return struct.Struct("<" + "".join(codes)), start


def zero(structure: Structure) -> None:
    """Set every byte of a structure to zero, in place."""
    raw = cast("Any", structure)
    ctypes.memset(ctypes.addressof(raw), 0, ctypes.sizeof(raw))


def leaves(structure: Structure) -> Iterator[Leaf]:
    """Walk all integers of a structure in order, reserved bytes included, with paths like `save.cs.base`."""
    return _leaves(structure, "", 0)


def _leaves(value: Any, path: str, offset: int) -> Iterator[Leaf]:
    if isinstance(value, ctypes.Structure):
        for name, kind in _fields(type(value)):
            inner, start = getattr(value, name), offset + getattr(type(value), name).offset
            below = f"{path}.{name}" if path else name
            if isinstance(inner, int):
                yield Leaf(below, start, ctypes.sizeof(kind), inner)
            else:
                yield from _leaves(inner, below, start)
    else:  # an array
        step = ctypes.sizeof(value) // len(value)
        for index, element in enumerate(value):
            below, start = f"{path}[{index}]", offset + index * step
            if isinstance(element, int):
                yield Leaf(below, start, step, element)
            else:
                yield from _leaves(element, below, start)


def _find(cls: type[Structure], path: str) -> tuple[int, int]:
    kind: Any = cls
    offset = size = 0
    for name in path.split("."):
        names = dict(_fields(kind))
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"{kind.__name__} has no field {name!r}{hint}")
        descriptor = getattr(kind, name)
        kind, offset, size = names[name], offset + descriptor.offset, descriptor.size
    return offset, size


def _fields(kind: Any) -> list[tuple[str, Any]]:
    return cast("list[tuple[str, Any]]", getattr(kind, "_fields_", []))


def _declared(cls: type[Structure]) -> Iterator[tuple[str, _At, Any]]:
    """Yield name, place and ctypes type of each annotated field."""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        place = vars(cls).get(name)
        if not isinstance(place, _At):
            # TRY004 would have a TypeError, but all faults of a declaration are ValueErrors.
            raise ValueError(  # noqa: TRY004
                f"{cls.__name__}.{name} has no place: write `{name}: ... = at(offset)`"
            )
        if get_origin(hint) is not Array:
            yield name, place, _ctype(cls, name, hint)
        elif place.length is None:
            raise ValueError(f"{cls.__name__}.{name} is an array: write `at({place.offset:#x}, count=...)`")
        else:
            yield name, place, _ctype(cls, name, get_args(hint)[0]) * place.length


def _ctype(cls: type[Structure], name: str, hint: Any) -> Any:
    if get_origin(hint) is Annotated:
        return get_args(hint)[1]
    if isinstance(hint, type) and issubclass(hint, ctypes.Structure):
        return hint
    raise ValueError(f"{cls.__name__}.{name}: {hint!r} is none of u8, u16, u32, u64, a structure, an Array")


def _reserved(start: int, end: int) -> tuple[str, Any]:
    return f"reserved_{start:#05x}", ctypes.c_uint8 * (end - start)
