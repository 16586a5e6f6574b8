import pytest

from trapline.errors import ProcessorError, UsageError
from trapline.processors.qemu.confinement import Device, check_confined, pci_devices


def tree(*devices):
    """Return what QEMU prints of a machine with PCI devices (kind, address, id) besides its own."""
    lines = [
        "bus: main-system-bus",
        "  type System",
        '  dev: hpet, id ""',
        '  dev: i440FX-pcihost, id ""',
        "    bus: pci.0",
    ]
    for kind, address, number in (("i440FX", "00:00.0", "8086:1237"), *devices):
        lines += [f'      dev: {kind}, id "dev: x"', '        romfile = "class, addr 1, pci id 2:2"']
        lines += [f"        class Class 00ff, addr {address}, pci id {number} (sub 1af4:0004)", "        bus: it.0"]
        lines += ["          type System", '          dev: ps2-mouse, id ""']
    return "\n".join(lines)


E1000 = ("e1000", "00:03.0", "8086:100e")
OURS = ("ivshmem-plain", "00:1e.7", "1af4:1110")
USUAL = (("piix3-ide", "00:01.1", "8086:7010"), ("PIIX3", "00:01.0", "8086:7000"), ("VGA", "00:02.0", "1234:1111"))


def test_devices_are_read_with_what_they_are():
    assert list(pci_devices(tree(E1000))) == [Device("i440FX", "00:00.0", "8086:1237"), Device(*E1000)]


def test_the_usual_ones_and_ours_are_confined():
    check_confined(tree(*USUAL, OURS), ["usb-kbd"])


@pytest.mark.parametrize(
    "other", [E1000, ("ivshmem-plain", "00:03.0", "1af4:1110"), ("PCI-BRIDGE", "00:1e.0", "1b36:0001")]
)
def test_others_are_refused_by_name(other):
    with pytest.raises(UsageError, match=rf"^--isolate cannot keep {other[0]} \({other[2]} at {other[1]}\) out of "):
        check_confined(tree(*USUAL, other), [])


def test_so_is_one_without_a_bus():
    with pytest.raises(UsageError, match=r"^--isolate cannot keep vmgenid out of "):
        check_confined(tree(), ["vmgenid"])


@pytest.mark.parametrize("printed", [None, "", "bus: main-system-bus", tree().replace("i440FX,", "mch,")])
def test_a_machine_that_is_not_described_is_refused(printed):
    with pytest.raises(ProcessorError, match="does not say"):
        check_confined(printed, [])
