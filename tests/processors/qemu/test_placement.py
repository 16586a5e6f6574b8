import pytest

from trapline.arch import cpuid
from trapline.errors import UsageError
from trapline.processors.qemu import layout, placement

GIB = 1 << 30
COMMAND = ("/usr/bin/qemu-system-x86_64", "-machine", "pc", "-cpu", "EPYC,phys-bits=40,-svm", "-m", "4096M")


@pytest.fixture
def describe(shared):
    """Return a function that describes a CPU as the firmware does."""

    def describe(*, features=cpuid.LONG_MODE, address_bits=0x3028):
        mailbox = shared.mailbox
        mailbox.features, mailbox.address_bits, mailbox.placing = features, address_bits, 1

    return describe


@pytest.mark.parametrize(
    ("address_bits", "ram_end", "base"),
    [
        (0x3028, 256 << 20, 512 * GIB),
        (0x3030, 256 << 20, 512 * GIB),  # a CPU with more
        (0x3027, 9 * GIB, 256 * GIB),
        (0x3024, 9 * GIB, 32 * GIB),
        (0, 9 * GIB, 32 * GIB),  # it does not say
        (0x3022, 8 * GIB, 8 * GIB),
        (0x2021, 3 * GIB, 4 * GIB),
    ],
)
def test_the_memory_goes_above_the_ram(shared, describe, address_bits, ram_end, base):
    describe(address_bits=address_bits)
    placement.place(shared, ram_end, COMMAND)
    assert (shared.base, shared.mailbox.base_high << 32, shared.mailbox.placing) == (base, base, 0)
    assert any(shared.memory[layout.PML4_AT : layout.PML4_AT + 8])


@pytest.mark.parametrize(("address_bits", "ram_end"), [(0x3022, 9 * GIB), (0x2021, 5 * GIB), (0x2020, 1 << 20)])
def test_too_few_address_bits(shared, describe, address_bits, ram_end):
    describe(address_bits=address_bits)
    with pytest.raises(UsageError, match=r"qemu-system-x86_64's CPU EPYC,phys-bits=40 has 3\d address bits, too few"):
        placement.place(shared, ram_end, COMMAND)


@pytest.mark.parametrize("features", [0, ~cpuid.LONG_MODE & 0xFFFF_FFFF])
def test_no_long_mode(shared, describe, features):
    describe(features=features)
    with pytest.raises(UsageError, match=r"qemu-system-x86_64's CPU EPYC,phys-bits=40 has no long mode, which"):
        placement.place(shared, 1 << 20, COMMAND)


def test_the_monitor_is_loaded_for_the_firmware_to_jump_to(memory):
    placement.load_monitor(memory)
    assert any(memory[layout.CODE_AT : layout.CODE_AT + 16])
    assert not any(memory[layout.TABLES_AT : layout.TABLES_AT + 16])
