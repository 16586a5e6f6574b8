from trapline.processors.qemu import pci


def test_addresses_take_bus_device_function_and_register():
    assert pci.address((0, 0), 0) == 0x8000_0000
    assert pci.address((0x1E, 7), 0x18) == 0x8000_F718
    assert pci.address((31, 7), 0xFC) == 0x8000_FFFC


def test_our_device_has_no_function_0_beside_it():
    assert pci.MONITOR_DEVICE[1] != 0
    assert pci.MONITOR_DEVICE[0] not in (0, 1, 2, 0x1F)  # host bridge, PIIX3, VGA, ICH9


def test_all_shadow_registers_are_opened():
    assert len(pci.SHADOW_OPEN) == 7
    assert all(value & 0x30 == 0x30 for value in pci.SHADOW_OPEN)
