"""The values of attributes by their forms (DWARF 5, 7.5.5 and 7.5.6)."""

from typing import Final, NamedTuple, TypeAlias

from .cursor import Cursor, Damaged

ADDR, STRING, STRP, LINE_STRP, SEC_OFFSET, RNGLISTX = 0x01, 0x08, 0x0E, 0x1F, 0x17, 0x23
_REF_ADDR, _SDATA, _INDIRECT, _FLAG, IMPLICIT = 0x10, 0x0D, 0x16, 0x19, 0x21
_FIXED: Final = {
    0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8, 0x1C: 4, 0x1E: 16, 0x20: 8,
    0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4, 0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4,
}  # fmt: skip
"""Forms of a fixed size: data, flag, ref, ref_sup, data16, ref_sig8, strx1 to 4, addrx1 to 4."""
_ULEBS: Final = frozenset({0x0F, 0x15, 0x1A, 0x1B, 0x22, RNGLISTX, 0x1F01, 0x1F02})
"""DW_FORM_udata, ref_udata, strx, addrx, loclistx, rnglistx, and GNU's addr_index and str_index."""
_OFFSETS: Final = frozenset({_REF_ADDR, STRP, SEC_OFFSET, 0x1D, LINE_STRP, 0x1F20, 0x1F21})
"""DW_FORM_ref_addr, strp, sec_offset, strp_sup, line_strp, and GNU's of another file."""
_BLOCKS: Final = {0x03: 2, 0x04: 4, 0x0A: 1, 0x09: 0, 0x18: 0}
"""DW_FORM_block2, 4, 1, block and exprloc: the size of the length, 0 for a LEB128."""
STRXS: Final = frozenset({0x1A, 0x25, 0x26, 0x27, 0x28})
ADDRXS: Final = frozenset({0x1B, 0x29, 0x2A, 0x2B, 0x2C})

Value: TypeAlias = tuple[int, int | bytes]
"""A form, and a number, or a string as bytes; blocks are left out."""


class Shape(NamedTuple):
    """How a unit is encoded."""

    version: int
    offset: int
    """Bytes of an offset."""
    address: int
    """Bytes of an address."""

    def header(self, small: int, large: int) -> int:
        """Return the size of a header by the size of an offset."""
        return small if self.offset == 4 else large


def read_value(cursor: Cursor, form: int, constant: int, shape: Shape) -> Value:
    """Read a value; `constant` is that of DW_FORM_implicit_const. Raises Damaged for an unknown form."""
    if form == _INDIRECT:
        form = cursor.uleb()
    if form == ADDR:
        return form, cursor.uint(shape.address)
    if form == STRING:
        return form, cursor.string()
    if form in _OFFSETS:
        return form, cursor.uint(shape.address if form == _REF_ADDR and shape.version == 2 else shape.offset)
    if form in _FIXED:
        return form, cursor.uint(_FIXED[form])
    if form in _ULEBS:
        return form, cursor.uleb()
    if form == _SDATA:
        return form, cursor.sleb()
    if form in (_FLAG, IMPLICIT):
        return form, constant
    if form not in _BLOCKS:
        raise Damaged
    size = _BLOCKS[form]
    cursor.skip(cursor.uint(size) if size else cursor.uleb())
    return form, b""
