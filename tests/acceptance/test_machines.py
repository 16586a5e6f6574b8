"""Guests run on every CPU that can run the monitor; others are refused, and a silent machine is given up."""

import subprocess

import pytest

from tests.acceptance.runs import LIMIT, QEMU, TRAPLINE, trapline


def sample_on(*machine, options=()):
    """Run a sample on QEMU; `machine` are QEMU's options, after `--`."""
    return trapline("run", "sample:ud", "--processor", "qemu", *options, "--", *machine)


@pytest.mark.parametrize("isolation", [(), ("--isolate",)], ids=["", "isolated"])
@pytest.mark.parametrize("bits", [34, 36, 39, 40, 48])
def test_the_address_bits_of_the_cpu_are_made_use_of(bits, isolation):
    done = sample_on("-cpu", f"qemu64,phys-bits={bits}", options=isolation)
    assert (done.status, done.console.splitlines()[-1]) == (0, b"done"), done.words
    assert "1 exception recorded" in done.words


def test_much_memory_needs_more_of_them():
    done = sample_on("-cpu", "qemu64,phys-bits=34", options=("--memory", "6G"))
    assert (done.status, done.console.splitlines()[-1]) == (0, b"done"), done.words
    done = sample_on("-cpu", "qemu64,phys-bits=33", options=("--memory", "6G"))
    assert done.status in (1, 2)  # QEMU may find it out before
    assert done.words.count("\n") == 1
    assert "phys-bits" in done.words


@pytest.mark.parametrize("model", ["486", "pentium3", "qemu32", "qemu64,-lm"])
def test_a_cpu_without_long_mode_is_refused(model):
    done = sample_on("-cpu", model)
    assert done.status == 2
    assert done.words == (
        f"trapline: {QEMU}'s CPU {model} has no long mode, which trapline's monitor needs for 32-bit guests too: "
        "take qemu-system-x86_64 and a 64-bit model, such as -cpu qemu64\n"
    )


def test_a_qemu_for_32_bits_is_refused():
    done = sample_on(options=("--qemu", "qemu-system-i386"))
    assert done.status == 2
    assert done.words.startswith("trapline: qemu-system-i386's CPU qemu64 has no long mode, which ")
    assert done.words.count("\n") == 1


def test_a_machine_without_default_devices_has_its_console(tmp_path):
    done = sample_on("-nodefaults")
    assert (done.status, done.console.splitlines()[-1]) == (0, b"done")
    file = tmp_path / "console.txt"
    kept = sample_on("-nodefaults", options=("--console", str(file)))
    assert (kept.status, kept.console, file.read_bytes()) == (0, b"", done.console)


def test_a_console_that_the_user_placed_is_left_alone(tmp_path):
    own, file = tmp_path / "own.txt", tmp_path / "console.txt"
    placed = ("-nodefaults", "-chardev", f"file,id=mine,path={own}", "-device", "isa-serial,chardev=mine")
    done = sample_on(*placed, options=("--console", str(file)))
    assert (done.status, file.read_bytes(), own.read_bytes().splitlines()[-1]) == (0, b"", b"done")


def test_a_machine_that_stays_paused_is_given_up():
    done = sample_on("-S")
    assert done.status == 1
    assert done.words == "trapline: QEMU is paused (-S), and nothing was given that could resume it\n"


def test_one_that_can_be_resumed_is_waited_for():
    command = [*TRAPLINE, "run", "sample:ud", "--processor", "qemu", "--console", "/dev/null", "--"]
    with subprocess.Popen(
        [*command, "-S", "-monitor", "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(8)
        _, errors = process.communicate(b"cont\n", LIMIT)
    assert process.returncode == 0
    assert b"1 exception recorded" in errors


@pytest.mark.parametrize(("device", "status"), [("e1000", 2), ("virtio-rng-pci", 2), ("vmgenid", 2), ("ne2k_pci", 0)])
def test_an_isolated_machine_has_no_device_that_reaches_the_monitor(device, status):
    done = sample_on("-device", device, options=("--isolate",))
    assert done.status == status, done.words
    assert done.words.startswith(f"trapline: --isolate cannot keep {device} ") is bool(status)
    assert not status or done.words.count("\n") == 1
