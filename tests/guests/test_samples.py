"""The sample guests as images; what they do is tested where they run, in tests/acceptance."""

import struct

import iced_x86 as iced
import pytest

from trapline.arch import address_space, paging
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import FORCEABLE, VECTORS, Vector, bits
from trapline.asm.operands import RAX
from trapline.errors import UsageError
from trapline.guests.boot import bare_entry
from trapline.guests.guest import GuestKind
from trapline.guests.open import open_guest
from trapline.guests.qemu import in_file, qemu_options
from trapline.guests.recognise import recognise
from trapline.guests.samples import SAMPLES, End, find_sample, places, tables
from trapline.guests.samples.kernel import Kernel, guest
from trapline.machine.boot import Boot
from trapline.machine.scripted import ScriptedMemory

each = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


@each
def test_a_sample_is_a_multiboot_kernel_for_both_machines(sample, file):
    image = sample.build()
    assert image == sample.build()
    assert recognise(file(image)).kind is GuestKind.MULTIBOOT
    boot = bare_entry(open_guest(f"sample:{sample.name}"), memory=4 << 20)
    assert isinstance(boot, Boot)
    assert (places.LOAD, image) in boot.loads
    cleared = sum(len(data) for gpa, data in boot.loads if places.LOAD_END <= gpa < places.END)
    assert cleared == places.END - places.LOAD_END


@each
def test_a_sample_says_what_it_is(sample):
    assert sample.name == sample.name.lower()
    assert sample.vectors
    assert list(sample.vectors) == sorted(set(sample.vectors))
    assert sample.description.encode("ascii") + b"\n\0" in sample.build()
    assert len(sample.description) < 60


def test_each_exception_that_can_be_forced_has_a_sample():
    alone = {vector for sample in SAMPLES if sample.name.upper() in Vector.__members__ for vector in sample.vectors}
    assert alone == set(bits(FORCEABLE)) - {Vector.CP}  # shadow stacks: no processor here has them
    assert {sample.end for sample in SAMPLES} == set(End)
    assert len({sample.name for sample in SAMPLES}) == len(SAMPLES)


@pytest.mark.parametrize(("name", "found"), [("pf", "pf"), ("PF", "pf"), ("#PF", "pf"), ("Ring3", "ring3")])
def test_a_sample_is_found_by_name(name, found):
    assert find_sample(name).name == found


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ring0", "did you mean ring3?"),
        ("doublefault", "did you mean double-fault"),
        ("zzz", "`trapline samples` lists them"),
        ("", "`trapline samples` lists them"),
    ],
)
def test_an_unknown_sample_is_refused_with_those_that_come_near(name, hint):
    with pytest.raises(UsageError) as caught:
        open_guest(f"sample:{name}")
    assert str(caught.value).startswith(f"no sample guest is called {name!r}; {hint}")


def test_a_sample_for_qemu_is_in_a_file_that_leaves_nothing_behind():
    with in_file(open_guest("sample:ud")) as guest:
        assert guest.path.read_bytes() == find_sample("ud").build()
        assert qemu_options(guest) == ["-kernel", str(guest.path)]
    assert not guest.path.exists()


def test_a_file_stays_where_it_is(file):
    guest = open_guest(str(file(find_sample("ud").build())))
    with in_file(guest) as same:
        assert same is guest


# ---- the tables


@pytest.fixture
def memory():
    return ScriptedMemory(2 << 20)


def part(image, address, form):
    return struct.unpack_from(form, image, address - places.LOAD)


def test_pages_are_mapped_as_they_are_described(memory):
    user = (places.USER, places.VARIABLES)
    for gpa, data in tables.page_tables({places.GUARD}, user).items():
        memory.write(gpa, data)

    def walk(gva):
        return address_space.walk(memory.read, CR0.PG | CR0.PE, places.PML4, CR4.PAE, EFER.LMA, gva)

    for gva in (0, places.CODE + 5, places.USER, places.GUARD - 1, places.GUARD + 0x1000, 0x1F_FFFF):
        assert walk(gva) == gva
    for gva, level in ((places.GUARD, 1), (0x20_0000, 2), (places.LAZY, 1), (places.UNMAPPED, 3)):
        with pytest.raises(paging.NotMapped) as caught:
            walk(gva)
        assert caught.value.level == level
    for page in range(512):
        (entry,) = struct.unpack("<Q", memory.read(places.PAGES + 8 * page, 8))
        assert bool(entry & paging.US) == (page << 12 in user)


@pytest.mark.parametrize(("bits", "size"), [(32, 8), (64, 16)])
def test_gates_lead_to_the_stubs_of_their_vectors(bits, size):
    kernel = Kernel(bits)
    kernel.gates[Vector.DE] = tables.Gate(places.NON_CANONICAL if bits == 64 else 0x8765_4321, present=False)
    kernel.interrupt_stacks.add(Vector.DF)
    kernel.open_gates.add(Vector.BP)
    kernel.finish()
    image = kernel.image()
    labels = kernel.code.labels(places.CODE)
    limit, base = part(image, places.IDTR, "<HI")
    assert (limit, base) == (len(VECTORS) * size - 1, places.IDT)
    for row in VECTORS:
        low, selector, ist, kind, middle, high = part(image, places.IDT + row.vector * size, "<HHBBHI")
        offset = low | middle << 16 | (high << 32 if bits == 64 else 0)
        if row.vector == Vector.DE:
            assert (offset, kind) == (kernel.gates[0].offset, 0x0E)
            continue
        assert offset == labels[f"vector{row.vector}"]
        assert selector == places.CODE_SELECTOR
        assert kind == (0xEE if row.vector == Vector.BP else 0x8E)
        assert ist == (1 if row.vector == Vector.DF else 0)


@pytest.mark.parametrize("bits", [32, 64])
def test_descriptors_are_what_their_selectors_say(bits):
    image = guest("", lambda kernel: None, bits=bits)
    limit, base = part(image, places.GDTR, "<HI")
    assert (limit, base) == (79, places.TABLES)

    def access(selector):
        (descriptor,) = part(image, places.TABLES + (selector & ~7), "<Q")
        return descriptor >> 40 & 0xFF, descriptor >> 52 & 0xF

    code = 0xC if bits == 32 else 0xA
    assert access(places.CODE_SELECTOR) == (0x9B, code)
    assert access(places.DATA_SELECTOR) == (0x93, 0xC)
    assert access(places.USER_CODE_SELECTOR) == (0xFB, code)
    assert access(places.USER_DATA_SELECTOR) == (0xF3, 0xC)
    assert access(places.TSS_SELECTOR) == (0x89, 0)
    assert access(places.ABSENT_SELECTOR)[0] == 0x13
    assert part(image, places.TABLES + places.TSS_SELECTOR, "<HHBBBBI") == (
        *(0x67, places.TSS & 0xFFFF, places.TSS >> 16 & 0xFF, 0x89, 0, places.TSS >> 24, 0),
    )


def test_the_tss_names_the_stacks():
    assert part(guest("", lambda kernel: None), places.TSS, "<4xQ24xQ") == (places.STACK, places.INTERRUPT_STACK)
    assert part(guest("", lambda kernel: None, bits=32), places.TSS, "<4xII") == (places.STACK, places.DATA_SELECTOR)


def test_a_text_stands_once():
    kernel = Kernel(64)
    first = kernel.texts("once\n")
    assert kernel.texts("once\n") == first
    kernel.finish()
    assert part(kernel.image(), first, "6s") == (b"once\n\0",)


def test_what_grows_into_its_neighbour_is_noticed():
    kernel = Kernel(64)
    for _ in range(0x3000):
        kernel.code.nop()
    with pytest.raises(AssertionError, match="the part before"):
        kernel.image()


def test_the_handler_steps_over_the_instruction_alone():
    kernel = Kernel(64)
    kernel.raises(lambda code: code.mov(RAX, 0x1234_5678_9ABC))
    kernel.finish()
    start = kernel.code.labels(places.CODE)["main"]
    image = kernel.image()
    decoder = iced.Decoder(64, image[start - places.LOAD :], ip=start)
    skip = next(decoder)
    assert (skip.memory_displacement, skip.immediate32) == (places.SKIP, 10)
