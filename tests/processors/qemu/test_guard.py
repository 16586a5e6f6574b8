import pytest

from trapline.arch.exits import ExitCode
from trapline.arch.registers import DR6, RFLAGS
from trapline.errors import ProcessorError
from trapline.processors.qemu import pci
from trapline.processors.qemu.guard import ConfigGuard

OURS = pci.address(pci.MONITOR_DEVICE, 0)
IN, STRING, BYTE, WORD, DWORD = 1, 1 << 2, 1 << 4, 1 << 5, 1 << 6


@pytest.fixture
def guard(shared):
    return ConfigGuard(shared)


@pytest.fixture
def access(guard, shared):
    """Return a function that plays an IN or OUT; the value of OUT, or what AL, AX or EAX was before an IN."""

    def access(info, rax=0, flags=RFLAGS.ALWAYS_ONE):
        control, save = shared.vmcb.control, shared.vmcb.save
        control.exit_code, control.exit_info_1, control.exit_info_2 = ExitCode.IOIO, info, 0x102
        save.rip, save.rax, save.rflags = 0x100, rax, flags
        control.interrupt_shadow = 1
        trapped = guard.answer()
        assert (save.rip, control.interrupt_shadow) == (0x102, 0)
        return trapped, save.rax, guard.output

    return access


@pytest.mark.parametrize("address", [0x8000_0000, 0x8000_F800, 0x8000_F600, 0x0000_F700, 0x8001_F700])
def test_other_devices_are_found(access, address):
    assert access(DWORD, address) == (False, address, address)


@pytest.mark.parametrize("register", [0, 0x10, 0x18, 0xFC])
def test_our_device_goes_out_disabled_and_reads_back_as_written(access, register):
    address = OURS | register
    assert access(DWORD, 0xAAAA_AAAA_0000_0000 | address)[2] == address & 0x7FFF_FFFF
    assert access(DWORD | IN, 0xFFFF_FFFF_FFFF_FFFF)[1:] == (address, None)


def test_small_accesses_do_not_move_the_address(access):
    access(DWORD, 0x8000_1234)
    assert access(BYTE, 0xFF)[2] is None
    assert access(WORD, 0xFFFF)[2] is None
    assert access(DWORD | IN)[1] == 0x8000_1234
    assert access(BYTE | IN, 0x1111_1111_1111_1111)[1] == 0x1111_1111_1111_1134
    assert access(WORD | IN, 0x1111_1111_1111_1111)[1] == 0x1111_1111_1111_1234


def test_a_reset_forgets_the_address(access, guard):
    access(DWORD, 0x8000_1234)
    guard.reset()
    assert access(DWORD | IN)[1] == 0


def test_a_single_step_over_it_is_owed_its_db(access, shared):
    shared.vmcb.save.dr6 = DR6.FIXED
    assert access(DWORD, OURS, RFLAGS.TF | RFLAGS.RF)[0]
    assert shared.vmcb.control.exit_code == 0x41
    assert shared.vmcb.save.dr6 == DR6.FIXED | DR6.BS
    assert shared.vmcb.save.rflags == RFLAGS.TF


def test_string_instructions_are_refused_in_words(shared, guard):
    shared.vmcb.control.exit_info_1 = DWORD | STRING
    with pytest.raises(ProcessorError, match="string I/O"):
        guard.answer()
