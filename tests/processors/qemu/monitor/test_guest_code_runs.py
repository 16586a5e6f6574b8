"""How the monitor tells an instruction in the guest's memory, executed: #GP with code 0, and INT n."""

import pytest

from tests.processors.qemu.monitor.test_monitor_runs import Cpu, raise_, record
from trapline.arch.descriptors import Attribute
from trapline.arch.events import Event, EventType, decode, encode
from trapline.arch.exits import ExitCode
from trapline.arch.paging import PS, P
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import Vector
from trapline.processors.qemu.layout import Policy
from trapline.processors.qemu.software_interrupts import COMBINING

GP = Vector.GP
ROOT, SECOND, THIRD, FOURTH, FRAME = 0x2000, 0x3000, 0x4000, 0x5000, 0x6000
OUTSIDE = 0x20_0000
FLAT, REAL = 0x00C1_2000, 0x0030  # bases of CS
INT3, INTO, INT_41 = b"\xcc", b"\xce", b"\xcd\x41"
VMRUN, RDMSR, CLI = b"\x0f\x01\xd8", b"\x0f\x32", b"\xfa"


@pytest.fixture
def cpu(memory):
    cpu = Cpu(memory)
    cpu.mailbox.ram_low, cpu.mailbox.soft_arm = len(cpu.ram), COMBINING
    plan = cpu.shared.plans[GP]
    plan.event = encode(Event(GP, EventType.EXCEPTION, 0)) & 0xFFFF_FFFF
    plan.policy = Policy.RECORD
    return cpu


def map_page(cpu, gva, entries, size):
    """Write the page tables: (table, shift, what the entry holds), entries of 4 or 8 bytes."""
    for table, shift, entry in entries:
        at = table + (gva >> shift & 0x1000 // size - 1) * size
        cpu.ram[at : at + size] = entry.to_bytes(size, "little")


def unpaged(cpu, gva):
    return gva


def long_4k(cpu, gva):
    map_page(cpu, gva, ((ROOT, 39, SECOND | P), (SECOND, 30, THIRD | P), (THIRD, 21, FOURTH | P)), 8)
    map_page(cpu, gva, ((FOURTH, 12, FRAME | P | 1 << 63),), 8)
    return FRAME | gva & 0xFFF


def long_2m(cpu, gva):
    map_page(cpu, gva, ((ROOT, 39, SECOND | P), (SECOND, 30, THIRD | P), (THIRD, 21, 0x1000 | P | PS)), 8)
    return gva & 0x1F_FFFF  # bits below the size of the page are none of the address


def long_1g(cpu, gva):
    map_page(cpu, gva, ((ROOT, 39, SECOND | P), (SECOND, 30, P | PS)), 8)
    return gva & 0x3FFF_FFFF


def pae_4k(cpu, gva):
    map_page(cpu, gva, ((ROOT, 30, THIRD | P), (THIRD, 21, FOURTH | P), (FOURTH, 12, FRAME | P)), 8)
    return FRAME | gva & 0xFFF


def pae_2m(cpu, gva):
    map_page(cpu, gva, ((ROOT, 30, THIRD | P), (THIRD, 21, P | PS)), 8)
    return gva & 0x1F_FFFF


def old_4k(cpu, gva):
    map_page(cpu, gva, ((ROOT, 22, SECOND | P), (SECOND, 12, FRAME | P)), 4)
    return FRAME | gva & 0xFFF


def old_4m(cpu, gva):
    map_page(cpu, gva, ((ROOT, 22, P | PS),), 4)
    return gva & 0x3F_FFFF


def old_4k_ps(cpu, gva):
    """Without CR4.PSE the bit means nothing."""
    map_page(cpu, gva, ((ROOT, 22, SECOND | P | PS), (SECOND, 12, FRAME | P)), 4)
    return FRAME | gva & 0xFFF


PAGED, LONG = CR0.PE | CR0.PG, EFER.LME | EFER.LMA
WAYS = {
    "real mode": (unpaged, 0, 0, 0, 0, REAL, 0x1230),
    "protected mode": (unpaged, CR0.PE, 0, 0, Attribute.DB, 0xFFFF_F000, 0x2230),  # the sum wraps
    "64-bit, 4 KiB": (long_4k, PAGED, CR4.PAE, LONG, Attribute.L, FLAT, 0xFFFF_8123_4567_8ABC),
    "64-bit, 2 MiB": (long_2m, PAGED, CR4.PAE, LONG, Attribute.L, FLAT, 0x7F12_3440_1230),
    "64-bit, 1 GiB": (long_1g, PAGED, CR4.PAE, LONG, Attribute.L, FLAT, 0x7F12_4000_1230),
    "compatibility": (long_4k, PAGED, CR4.PAE, LONG, Attribute.DB, FLAT, 0x1230),
    "PAE, 4 KiB": (pae_4k, PAGED, CR4.PAE, 0, Attribute.DB, FLAT, 0xBF00_0230),
    "PAE, 2 MiB": (pae_2m, PAGED, CR4.PAE, 0, Attribute.DB, 0, 0xC040_1230),
    "without PAE, 4 KiB": (old_4k, PAGED, CR4.PSE, 0, Attribute.DB, FLAT, 0xBF00_0230),
    "without PAE, 4 MiB": (old_4m, PAGED, CR4.PSE, 0, Attribute.DB, 0, 0xC080_1230),
    "without PSE": (old_4k_ps, PAGED, 0, 0, Attribute.DB, 0, 0xC080_1230),
    "virtual-8086": (old_4k, PAGED, 0, 0, 0, 0x12340, 0x1230),
}
"""Page tables, CR0, CR4, EFER, attributes and base of CS, and RIP."""


@pytest.fixture(params=WAYS)
def at_rip(cpu, request):
    """Return a function that puts code where RIP leads."""
    tables, save = WAYS[request.param], cpu.vmcb.save
    build, save.cr0, save.cr4, save.efer, save.cs.attributes, save.cs.base, save.rip = tables
    save.cr3 = ROOT | 0x18
    gva = save.rip if save.cs.attributes & Attribute.L else save.cs.base + save.rip & 0xFFFF_FFFF
    gpa = build(cpu, gva)

    def at_rip(code):
        cpu.ram[gpa : gpa + len(code)] = code

    return at_rip


def software_interrupt(cpu):
    cpu.vmcb.control.exit_code, cpu.vmcb.control.exit_int_info, cpu.vmcb.control.event_inj = ExitCode.SWINT, 0, 0
    cpu.vmcb.control.interrupt_shadow = 1


def test_int_n_is_injected(cpu, at_rip):
    at_rip(INT_41)
    cpu.mailbox.intercepts, rip = 1 << GP, cpu.vmcb.save.rip
    cpu.run(software_interrupt)
    control = cpu.vmcb.control
    assert decode(control.event_inj) == Event(0x41, EventType.SOFT)
    assert (cpu.mailbox.injected, cpu.mailbox.soft_rip) == (control.event_inj, rip)
    assert (cpu.vmcb.save.rip, control.intercept_exceptions) == (rip + 2, 1 << GP | COMBINING)
    assert (cpu.asked, control.interrupt_shadow) == (1, 0)


@pytest.mark.parametrize("code", [INT3, INTO, b"\x66" + INT_41])
def test_int3_and_into_are_the_hosts(cpu, at_rip, code):
    at_rip(code)
    cpu.run(software_interrupt)
    assert (cpu.asked, cpu.vmcb.control.event_inj) == (2, 0)


@pytest.mark.parametrize(
    "code", [RDMSR, CLI, b"\x41\x89\x06", b"\x66\x9c", b"\x0f\x01\xd0", b"\x0f\x01\xe0", b"\x0f\x02\xd8", b"\x8e\xd8"]
)
def test_a_protection_fault_of_the_guest_needs_nobody(cpu, at_rip, code):
    at_rip(code)
    cpu.run(raise_(GP, 0, 0x5555_0000_0000_0000))
    assert (cpu.asked, cpu.mailbox.ring_head, record(cpu, 0).address) == (1, 1, 0)
    assert decode(cpu.vmcb.control.event_inj) == Event(GP, EventType.EXCEPTION, 0)


@pytest.mark.parametrize("third", range(0xD8, 0xE0))
@pytest.mark.parametrize("prefixes", [b"", b"\x48", b"\x67", b"\xf3", b"\x2e\x66", b"\x64", b"\x66" * 5, b"\x66" * 6])
def test_that_of_an_svm_instruction_is_the_hosts(cpu, third, prefixes):
    cpu.ram[0x1230 : 0x1230 + 8] = (prefixes + bytes((0x0F, 0x01, third)))[:8].ljust(8, b"\0")
    cpu.vmcb.save.rip = 0x1230
    cpu.run(raise_(GP, 0))
    assert (cpu.asked, cpu.mailbox.ring_head) == (2, 0)


def test_no_register_is_lost(cpu, at_rip):
    """The host gets, and the guest gets back, what it had."""
    at_rip(INT3)
    names = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8")

    def with_registers(cpu):
        for number, name in enumerate(names, 0x1111):
            cpu.set(name, number)
        software_interrupt(cpu)

    cpu.run(with_registers)
    seen = [cpu.get(name) for name in names]
    assert seen == list(range(0x1111, 0x1118))
    gprs = cpu.shared.gprs
    assert (gprs.rsi, gprs.rdi, gprs.rbx) == (0x1114, 0x1115, 0x1111)


def absent(cpu):
    cpu.ram[ROOT : ROOT + 0x1000] = bytes(0x1000)


def outside(cpu):
    for at in range(ROOT, ROOT + 0x1000, 4):
        if any(cpu.ram[at : at + 4]):
            cpu.ram[at : at + 4] = (OUTSIDE | P).to_bytes(4, "little")


@pytest.mark.parametrize("spoil", [absent, outside])
def test_what_it_cannot_read_is_the_hosts(cpu, at_rip, spoil):
    at_rip(INT_41)
    if not cpu.vmcb.save.cr0 & CR0.PG:
        pytest.skip("there are no page tables")
    spoil(cpu)
    cpu.run(software_interrupt)
    assert (cpu.asked, cpu.vmcb.control.event_inj) == (2, 0)


@pytest.mark.parametrize(
    ("rip", "base", "asked"), [(0x1FF8, 0, 1), (0x1FF9, 0, 2), (0xFFFD, -0x8000, 2), (0x8000, 0x8000, 2)]
)
def test_the_ends_of_a_page_a_segment_and_memory(cpu, rip, base, asked):
    save = cpu.vmcb.save
    save.rip, save.cs.base = rip, base & (1 << 64) - 1
    if rip + base + 2 <= len(cpu.ram):
        cpu.ram[rip + base : rip + base + 2] = INT_41
    cpu.run(software_interrupt)
    assert cpu.asked == asked


def test_four_megabytes_beyond_four_gigabytes_are_the_hosts(cpu):
    save = cpu.vmcb.save
    save.cr0, save.cr4, save.cr3, save.rip, save.cs.attributes = PAGED, CR4.PSE, ROOT, 0x1230, Attribute.DB
    map_page(cpu, 0x1230, ((ROOT, 22, P | PS | 1 << 13),), 4)
    cpu.ram[0x1230:0x1232] = INT_41
    cpu.run(software_interrupt)
    assert cpu.asked == 2


def test_five_levels_are_the_hosts(cpu):
    save = cpu.vmcb.save
    save.cr0, save.cr4, save.efer, save.cs.attributes = PAGED, CR4.PAE | CR4.LA57, LONG, Attribute.L
    save.cr3, save.rip = ROOT, long_4k(cpu, 0x1230)
    cpu.run(software_interrupt)
    assert cpu.asked == 2


def test_an_interrupted_delivery_is_the_hosts(cpu):
    cpu.ram[0x1230:0x1232] = INT_41
    cpu.vmcb.save.rip = 0x1230

    def during_another(cpu):
        software_interrupt(cpu)
        cpu.vmcb.control.exit_int_info = encode(Event(0x20, EventType.INTR))

    cpu.run(during_another)
    assert cpu.asked == 2
