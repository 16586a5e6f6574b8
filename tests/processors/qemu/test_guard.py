import pytest

from trapline.processors.qemu import guard, pci
from trapline.processors.qemu.guard import Access
from trapline.processors.qemu.layout import DOORBELL_PORT

OURS = pci.address(pci.MONITOR_DEVICE, 0)
CONFIG, EJECT = pci.CONFIG_ADDRESS, guard.EJECT_PORTS[0]


@pytest.fixture
def play(shared):
    """Return a function that executes an access by its rule: what the guest reads, and the parts that were executed.

    Reads find the values that are given, in their order.
    """
    rules = guard.rules(shared.mailbox)

    def play(access, *found):
        parts, values = [], iter(found)
        steps = rules[access.port](access)
        try:
            parts.append(next(steps))
            while True:
                parts.append(steps.send(next(values) if parts[-1].value is None else 0))
        except StopIteration as end:
            return end.value, parts

    return play


@pytest.mark.parametrize("address", [0x8000_0000, 0x8000_F800, 0x8000_F600, 0x0000_F700, 0x8001_F700])
def test_other_devices_are_found(play, address):
    assert play(Access(CONFIG, 4, address))[1] == [Access(CONFIG, 4, address)]
    assert play(Access(CONFIG, 4), address) == (address, [Access(CONFIG, 4)])


@pytest.mark.parametrize("register", [0, 0x10, 0x18, 0xFC])
def test_our_device_goes_out_disabled_and_reads_back_as_written(play, register):
    address = OURS | register
    assert play(Access(CONFIG, 4, address))[1] == [Access(CONFIG, 4, address & 0x7FFF_FFFF)]
    assert play(Access(CONFIG, 4), address & 0x7FFF_FFFF)[0] == address


def test_what_another_device_puts_in_that_place_is_read(play):
    play(Access(CONFIG, 4, OURS))
    assert play(Access(CONFIG, 4), 0x1234)[0] == 0x1234


@pytest.mark.parametrize("size", [1, 2])
def test_small_accesses_do_not_move_the_address(play, shared, size):
    play(Access(CONFIG, 4, OURS))
    assert play(Access(CONFIG, size, 0))[1] == [Access(CONFIG, size, 0)]
    assert play(Access(CONFIG, size), 0x12) == (0x12, [Access(CONFIG, size)])
    assert shared.mailbox.config_address == OURS


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_doorbell_is_a_port_without_a_device(play, size):
    assert play(Access(DOORBELL_PORT, size, 0x58))[1] == []
    assert play(Access(DOORBELL_PORT, size)) == (-1, [])


@pytest.mark.parametrize("slots", [1 << 0x1E, 3 << 0x1E])
@pytest.mark.parametrize("port", guard.EJECT_PORTS)
def test_our_slot_is_not_ejected(play, port, slots):
    assert play(Access(port, 4, slots))[1] == []


@pytest.mark.parametrize(
    "access",
    [
        Access(EJECT, 4, 1 << 0x1F),
        Access(EJECT, 4, 1 << 0x1E | 1 << 3),
        Access(EJECT, 4, 0),
        Access(EJECT, 2, 0xFFFF),
        Access(EJECT, 4),
    ],
)
def test_other_slots_are(play, access):
    assert play(access, 0x1234)[1] == [access]
