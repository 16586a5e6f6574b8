import pytest

from trapline.arch.topology import with_topology

ALONE = (0x0080_0F12, 0x0002_0800, 0x8000_0000, 0x0180_0000)


@pytest.mark.parametrize(
    ("leaf", "subleaf", "shown"),
    [
        (0, 0, ALONE),
        (1, 0, (0x0080_0F12, 0x0204_0800, 0x8000_0000, 0x1180_0000)),
        (0xB, 0, (0, 1, 0x100, 2)),
        (0xB, 1, (2, 4, 0x201, 2)),
        (0xB, 2, (0, 0, 2, 2)),
        (0x8000_0008, 0, (0x0080_0F12, 0x0002_0800, 0x8000_2003, 0x0180_0000)),
        (0x8000_001E, 0, (2, 2, 0, 0x0180_0000)),
    ],
)
def test_the_third_of_four_cpus(leaf, subleaf, shown):
    assert with_topology(ALONE, leaf, subleaf, apic_id=2, cpus=4) == shown
