import pytest

from trapline.processors.qemu.debug_exit import DEFAULT, exit_ports


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        ("isa-debug-exit", range(0x501, 0x503)),
        ("isa-debug-exit,iobase=0xf4,iosize=0x04", range(0xF4, 0xF8)),
        ("isa-debug-exit,iosize=1,iobase=244", range(0xF4, 0xF5)),
        ("driver=isa-debug-exit,iobase=0xf4", range(0xF4, 0xF6)),
        ('{"driver": "isa-debug-exit", "iobase": 244, "iosize": 4}', range(0xF4, 0xF8)),
        ("isa-debug-exit,iobase=0xffff,iosize=4", range(0xFFFF, 0x10000)),
        ("isa-debug-exit,iobase=here", range(0)),
        ("{isa-debug-exit", range(0x501, 0x503)),
        ('{"isa-debug-exit": "iobase"}', range(0x501, 0x503)),
    ],
)
def test_the_ports_of_a_device(value, ports):
    assert exit_ports(["qemu", "-device", value, "-net", "none"]) == [ports]
    assert exit_ports(["qemu", "--device", value]) == [ports]


def test_each_device_has_ports_and_other_options_have_none():
    command = ["qemu", *DEFAULT, "-device", "VGA", "-device", "isa-debug-exit", "-append", "isa-debug-exit", "-device"]
    assert exit_ports(command) == [range(0xF4, 0xF8), range(0x501, 0x503)]
