"""Two traces are the same whatever time and randomisation do, and part where one exception is different."""

import numpy as np
import pyarrow as pa
import pytest

import trapline
from trapline.report.difference import document, text
from trapline.symbols import Symbol
from trapline.trace.columns import dtype
from trapline.trace.diff import By, Kind, align, compare, fetch
from trapline.trace.exceptions import Exceptions
from trapline.trace.reading import Reading

KERNEL = 0xFFFF_FFFF_8100_0000


class Stored:
    """Records in batches of 100."""

    def __init__(self, rip, lookup=None, **fields):
        records = np.zeros(len(rip), dtype())
        records["rip"] = rip
        for name, value in {"vector": 14, "flags": 1, "tsc": np.arange(len(rip)), **fields}.items():
            records[name] = value
        self.table = Exceptions(records.tobytes(), lookup=lookup).to_arrow()
        self.count = len(rip)

    def batches(self, columns, *, first=0):
        chosen = self.table.filter(pa.compute.greater_equal(self.table["seq"], first // 50 * 50))
        yield from chosen.select(list(columns)).to_batches(max_chunksize=100)


def places(count, seed=1):
    """Return addresses of a kernel's code, some of them many times."""
    generator = np.random.default_rng(seed)
    code = np.unique(generator.integers(0, 1 << 20, 50)).astype(np.uint64)
    return code[generator.integers(0, code.size, count)]


@pytest.mark.parametrize("far", [1 << 19, 60])
def test_time_and_a_slide_do_not_count(monkeypatch, far):
    monkeypatch.setattr(fetch, "_FAR", far)
    rip = places(400)
    slide = 0x1C0_0000
    found = compare(Stored(rip + KERNEL), Stored(rip + (KERNEL + slide), tsc=5, vcpu=1))
    assert found.same
    assert [(each.half, each.slide) for each in found.randomised] == [(1, slide)]
    less = np.delete(rip, 333)
    found = compare(Stored(rip + KERNEL), Stored(less + (KERNEL - slide)))
    assert (found.new, found.gone, found.moved, found.changed) == (0, 1, 0, 0)
    parting = found.parting
    assert parting.kind is Kind.GONE
    assert parting.common == parting.a.seq == parting.b.seq
    assert parting.a.rip == rip[parting.common] + KERNEL
    far_apart = compare(Stored(rip), Stored(np.delete(rip, [20, 180, 350])))
    assert [change.a.rip for change in far_apart.changes] == [rip[change.a.seq] for change in far_apart.changes]
    assert far_apart.gone == 3
    assert [(each.a, each.b) for each in found.recounted] == [
        (np.count_nonzero(rip == rip[333]), np.count_nonzero(less == rip[333]))
    ]


def test_processes_that_are_placed_at_random_are_compared_by_offset_in_a_page():
    rip = places(400)
    pages = np.random.default_rng(2).integers(0, 1 << 30, (2, rip.size), np.uint64) << np.uint64(12)
    found = compare(*(Stored((rip & 0xFFF) + page) for page in pages))
    assert found.same
    assert [(each.half, each.slide) for each in found.randomised] == [(0, None)]


@pytest.mark.parametrize(
    ("a", "b", "changed"),
    [
        ([0x1000], [0x2000], 1),
        ([0x1010, 0x2020], [0x3010, 0x4020], 2),
        ([0x1010, 0x2020, 0x3030], [0x5010, 0x6020, 0x7030], 0),
        ([0x1010, 0x2020, 0x3030, 0x3040, 0x3050], [0x5010, 0x6020, 0x7030, 0x7040, 0x8050], 1),
    ],
)
def test_few_places_that_are_others_are_not_randomisation(a, b, changed):
    assert compare(Stored(a), Stored(b)).changed == changed


def test_the_base_of_a_segment_belongs_to_the_place():
    assert compare(Stored([0x10, 0x20], cs_base=[0x100, 0x200]), Stored([0x110, 0x220])).same
    found = compare(Stored([0x10, 0x20], cs_base=0x100), Stored([0x10, 0x20], cs_base=[0x100, 0x300]))
    assert (found.changed, found.parting.common) == (1, 1)


def test_where_it_was_cut_off_is_told(monkeypatch):
    monkeypatch.setattr(align, "_WORK", 0)
    rip = places(400)
    assert compare(Stored(rip), Stored(np.delete(rip, 7))).cut_off is None
    found = compare(Stored(rip), Stored(np.concatenate([rip[:9], rip[:20:-1], rip[390:]])))
    assert found.cut_off == (381, 379, (9, 9))
    assert (
        "from exception 9 of the first and 9 of the second on they have so little in common that 381 and 379 were not "
        "aligned: what both have of them counts as moved"
    ) in text(found)
    assert document(found)["cut_off"] == {"a": 381, "b": 379, "starts": [9, 9]}


def test_names_make_places_alike():
    rip = places(300)

    def names(base):
        return lambda address: Symbol(f"f{address - base >> 12}", address - base & 0xFFF)

    a, b = Stored(rip + 0x10_0000, names(0x10_0000)), Stored(rip + 0x7_1230, names(0x7_1230))
    assert compare(a, b).same
    assert not compare(a, Stored(rip + 0x7_1230, names(0x7_1231))).same
    assert compare(a, Stored(rip + 0x7_1230, names(0x7_1231)), by=By.FUNCTION).same
    found = compare(a, Stored(rip + 0x10_0000))
    assert (found.same, found.names) == (True, False)


def test_states_are_compared_if_asked_for():
    rip, rax = places(300), np.zeros(300, np.uint64)
    rax[[200, 250]] = 7
    a, b = Stored(rip), Stored(rip, rax=rax, tsc=3)
    assert compare(a, b).same
    states = compare(a, b, state=True).states
    assert (states.times, states.a.seq, states.b.registers[0]) == (2, 200, 7)


def guest(order):
    """Return a guest in real mode that raises #UD in functions, in this order."""
    start, functions, handler = 0x7C00, 0x7E00, 0x7F00
    code = bytes.fromhex("fa31c08ed88ed0bc0070c7061800") + handler.to_bytes(2, "little")
    code += bytes.fromhex("c7061a000000")
    for function in order:
        code += b"\xe8" + (functions + 4 * function - start - len(code) - 3 & 0xFFFF).to_bytes(2, "little")
    code = (code + b"\xf4").ljust(functions - start, b"\0")
    code += bytes.fromhex("0f0bc390") * 8
    return code.ljust(handler - start, b"\0") + bytes.fromhex("5589e5834602025dcf")


@pytest.mark.parametrize(
    ("order", "kind", "at"),
    [
        ([0, 1, 2, 3, 4, 1, 6], None, None),
        ([0, 1, 2, 5, 3, 4, 1, 6], Kind.NEW, 3),
        ([0, 1, 3, 4, 1, 6], Kind.GONE, 2),
        ([0, 1, 3, 4, 1, 2, 6], Kind.MOVED, 2),
        ([0, 1, 2, 3, 7, 1, 6], Kind.CHANGED, 4),
    ],
)
def test_two_runs_of_guests_with_one_difference(tmp_path, order, kind, at):
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    for file, functions in zip(files, ([0, 1, 2, 3, 4, 1, 6], order), strict=True):
        trapline.run(guest(functions), entry_mode=16, exceptions="all", timeout=60, output=file)
    with Reading(files[:1]) as a, Reading(files[1:]) as b:
        found = compare(a, b, state=kind is None)
    assert found.same is (kind is None)
    if kind is not None:
        assert (found.parting.kind, found.parting.common) == (kind, at)
        assert found.new + found.gone + found.moved + found.changed == 1
