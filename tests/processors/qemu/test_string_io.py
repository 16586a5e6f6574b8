import pytest

from trapline.arch.exits import exception_exit
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS, Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu.string_io import Element, StringFault, next_element

LONG, D32 = 1 << 9, 1 << 10
IN, STRING, REPEATED, SIZES = 1, 1 << 2, 1 << 3, {1: 1 << 4, 2: 1 << 5, 4: 1 << 6}
CODE, RAM = 0x400, 0x1_0000
HIGH = 0xAAAA_BBBB_0000_0000
PAGE_TABLES = {0x1000: 0x2000, 0x2000: 0x3000, 0x3000: 0x4000}
"""The tables of long mode, each with its first entry."""


@pytest.fixture
def ram():
    return ScriptedMemory(RAM)


@pytest.fixture
def element(ram):
    """Return a function that decodes the next element of a string instruction, and returns the registers as well."""

    def element(code, size, form=0, bits=32, rflags=0, **values):
        save, gprs = SaveArea(), Gprs()
        save.cs.attributes = {16: 0, 32: D32, 64: LONG}[bits]
        save.efer = EFER.LMA if bits == 64 else 0
        save.rip, save.rflags = CODE, rflags
        for name, value in values.items():
            if name.endswith("_base"):
                getattr(save, name[:2]).base = value
            else:
                setattr(gprs if name in ("rcx", "rsi", "rdi") else save, name, value)
        ram.write(CODE, bytes.fromhex(code))
        return next_element(save, gprs, ram, 40, form | STRING | SIZES[size]), gprs

    return element


@pytest.mark.parametrize(
    ("code", "bits", "size", "values", "pieces"),
    [
        ("6e", 32, 1, {"rsi": 0x2000}, [(0x2000, 1)]),
        ("6f", 32, 4, {"rsi": 0x2FFD, "ds_base": 0x10}, [(0x300D, 4)]),
        ("6f", 32, 4, {"rsi": 0x2FFD}, [(0x2FFD, 3), (0x3000, 1)]),
        ("666f", 32, 2, {"rsi": HIGH | 0x2000}, [(0x2000, 2)]),
        ("646f", 32, 4, {"rsi": 0x2000, "ds_base": 1, "fs_base": 0x5000}, [(0x7000, 4)]),
        ("676e", 32, 1, {"rsi": 0x1_2345}, [(0x2345, 1)]),
        ("6e", 16, 1, {"rsi": 0x1_2345, "ds_base": 0x1000}, [(0x3345, 1)]),
        ("676e", 64, 1, {"rsi": HIGH | 0x2000, "cr0": CR0.PE}, [(0x2000, 1)]),
    ],
)
def test_where_an_element_is(element, code, bits, size, values, pieces):
    assert list(element(code, size, bits=bits, **values)[0].pieces) == pieces


def test_the_place_of_ins_has_its_own_segment(element):
    found, _ = element("646d", 4, IN, rdi=0x2000, ds_base=1, fs_base=2, es_base=0x3000)
    assert (found.writes, found.pieces) == (True, ((0x5000, 4),))


@pytest.mark.parametrize(
    ("code", "bits", "form", "flags", "before", "after"),
    [
        ("6f", 32, 0, 0, (5, 0x2000), (5, 0x2004)),
        ("6f", 32, 0, RFLAGS.DF, (5, 0x2000), (5, 0x1FFC)),
        ("f36f", 32, REPEATED, 0, (5, 0x2000), (4, 0x2004)),
        ("f36f", 32, REPEATED, 0, (1, 0x2000), (0, 0x2004)),
        ("f26f", 32, REPEATED, 0, (5, 0x2000), (4, 0x2004)),
        ("f3666f", 16, REPEATED, 0, (0x1_0001, 0x1_FFFC), (0x1_0000, 0x1_0000)),
        ("f3676f", 64, REPEATED, 0, (HIGH | 2, HIGH | 0x2000), (1, 0x2004)),
    ],
)
def test_what_it_leaves_in_the_registers(element, code, bits, form, flags, before, after):
    found, gprs = element(code, 4, form, bits, flags, rcx=before[0], rsi=before[1])
    mask = 0xFFFF if bits == 16 else 0xFFFF_FFFF
    assert found.advance(gprs) is bool(form & REPEATED and after[0] & mask)
    assert (gprs.rcx, gprs.rsi) == after


@pytest.mark.parametrize(("code", "bits", "rcx"), [("f36e", 32, HIGH), ("f36e", 16, 0x1_0000), ("f36e", 64, 0)])
def test_a_counter_of_zero_moves_nothing(element, code, bits, rcx):
    assert element(code, 1, REPEATED, bits, rcx=rcx, rsi=0x2000)[0] is None


def test_elements_of_memory(ram):
    one = Element(True, ((0x2FFE, 2), (RAM, 1), (0x3001, 1)), 32, 4, False)
    one.store(ram, 0x4433_2211)
    assert (ram.read(0x2FFE, 2), ram.read(0x3000, 2)) == (b"\x11\x22", b"\x00\x44")
    assert one.load(ram) == 0x44FF_2211


@pytest.fixture
def paged(ram):
    """Return a function that maps two pages, the second read-only for the supervisor; it returns the registers."""

    def paged(**registers):
        for table, entry in PAGE_TABLES.items():
            ram.write(table, (entry | 7).to_bytes(8, "little"))
        ram.write(0x4000, b"".join(entry.to_bytes(8, "little") for entry in (7, 0x1001)))
        state = {"cr0": CR0.PG | CR0.PE | CR0.WP, "cr3": 0x1000, "cr4": CR4.PAE, "efer": EFER.LMA | EFER.LME}
        return {**state, **registers}

    return paged


@pytest.mark.parametrize(
    ("form", "registers", "address", "code"),
    [
        (0, {}, 0x2000, 0),
        (IN, {}, 0x2000, 2),
        (IN, {}, 0x1000, 3),
        (0, {"cpl": 3}, 0x1000, 5),
        (IN, {"cpl": 3}, 0x2000, 6),
        (0, {}, 0x1FFE, 0),
    ],
)
def test_page_faults(element, paged, form, registers, address, code):
    found, _ = element("6d" if form else "6f", 4, form, 64, rsi=address, rdi=address, **paged(**registers))
    assert found == StringFault(exception_exit(Vector.PF), code, max(address, 0x2000) if address > 0x1000 else address)


@pytest.mark.parametrize("code", ["6e", "366e", "646e"])
def test_an_address_that_is_not_canonical(element, paged, code):
    assert element(code, 1, 0, 64, rsi=1 << 63, **paged())[0] == StringFault(exception_exit(Vector.GP), 0, 0)


def test_accessed_and_dirty_bits_are_set(element, paged, ram):
    element("6c", 1, IN, 64, rdi=0x800, **paged())
    assert ram.read(0x4000, 1)[0] == 0x67
    assert ram.read(0x1000, 1)[0] == 0x27
