"""EFI programs of our own under OVMF."""

import re
import shutil

import pytest

from tests.acceptance.runs import DEBUG_EXIT, assert_same, on_qemu_alone, read_lines, trapline, under_trapline
from tests.acceptance.software import firmware
from tests.programs.efi import build_efi
from tools import efi_guests, testguests
from trapline.errors import ProcessorMissing
from trapline.processors.qemu.uefi import find_uefi

SOURCES = build_efi.Path(build_efi.__file__).parent
PC = ("-nodefaults",)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Return a function that builds the program."""
    if missing := build_efi.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    try:
        find_uefi()
    except ProcessorMissing as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("efi")

    def build(name, *options, source="faults.c", **form):
        return build_efi.build(SOURCES / source, folder / name, *options, **form)

    return build


@pytest.fixture(scope="module")
def loaded(program, tmp_path_factory):
    """A folder with a boot loader and a kernel, and that kernel."""
    folder = tmp_path_factory.mktemp("loaded")
    esp = folder / "esp"
    (esp / "EFI" / "BOOT").mkdir(parents=True)
    build_efi.build(SOURCES / "loader.c", folder / "loader.efi")
    kernel = build_efi.build_kernel(SOURCES / "kernel.c", folder / "kernel.elf")
    shutil.copy(folder / "loader.efi", esp / "EFI" / "BOOT" / "BOOTX64.EFI")
    shutil.copy(kernel, esp / "kernel")
    return esp, kernel


def test_its_exceptions_are_forced_named_and_explained(program, tmp_path):
    image, records = program("faults.efi"), tmp_path / "records.jsonl"
    run = under_trapline(image, "all", "--isolate", "-o", str(records), machine=PC)
    assert run.status == 3
    said = re.findall(rb"^efi: (.*)\r$", run.console, re.MULTILINE)
    assert said == [b"up", b"after #UD", b"after #GP", b"after #PF"]
    found = [(record["vector"], record["symbol"].partition("+")[0]) for record in read_lines(records)]
    assert found[:4] == [(6, "raise_ud"), (13, "raise_gp"), (14, "raise_pf"), (6, "faults.efi")]
    assert re.search(r"#UD at 0038:[0-9a-f]{16}\s+faults\.efi\+0x[0-9a-f]+", run.words), run.words
    assert "Cause:" in run.words
    assert re.search(
        r"#UD at 0038:[0-9a-f]{16}\s+faults\.efi\+0x[0-9a-f]+", trapline("explain", str(records)).console.decode()
    )


@pytest.mark.parametrize("options", [(), ("--isolate",)], ids=["open", "isolated"])
def test_the_first_instructions_are_under_it(options, tmp_path):
    try:
        code = bytearray(find_uefi().code.read_bytes())
    except ProcessorMissing as reason:
        pytest.skip(str(reason))
    jump = code.rindex(b"\xe9", len(code) - 16)  # the reset vector's, in real mode
    target = 0xFFF0 + jump - (len(code) - 16) + 3 + int.from_bytes(code[jump + 1 : jump + 3], "little") & 0xFFFF
    place = len(code) - 0x10000 + target
    code[place : place + 2] = b"\x0f\x0b"
    changed = tmp_path / "code.fd"
    changed.write_bytes(code)
    run = trapline("run", "--stop", "ud", "--timeout", "100", *options, "--", *PC, "-pflash", str(changed))
    assert run.status == 0, run.words
    assert re.search(rf"stop ud: #UD at f000:0*{target:x}\b", run.words), run.words


def soak(*values):
    return pytest.param(*values, marks=pytest.mark.soak)


@pytest.mark.parametrize(
    ("mask", "options"), [("all", ()), soak("none", ()), soak("none", ("--isolate",)), soak("all", ("--isolate",))]
)
def test_another_cpu_is_started_as_on_qemu_alone(mask, options, program, tmp_path):
    esp, records = tmp_path / "esp", tmp_path / "records.jsonl"
    (esp / "EFI" / "BOOT").mkdir(parents=True)
    shutil.copy(program("processors.efi", source="processors.c"), esp / "EFI" / "BOOT" / "BOOTX64.EFI")
    plain = on_qemu_alone(esp, *PC, "-smp", "4", firmware=firmware(tmp_path))
    run = under_trapline(esp, mask, "--cpus", "4", "-o", str(records), *options, machine=(*PC, *DEBUG_EXIT))
    assert plain.console.endswith(b"\nefi: up\r\nefi: CPU 1 has handled 3\r\n")
    assert_same(run.console, plain.console)
    assert (run.status, plain.status) == (0, 1)
    found = [(record["vcpu"], record["vector"], record["cs"]) for record in read_lines(records)]
    assert found == ([(1, 6, "0x800")] * 3 if mask == "all" else [])


def test_a_fault_of_another_cpu_is_explained_under_uefi(program):
    image = program("broken.efi", "-DBROKEN=1", source="processors.c")
    run = under_trapline(image, "all", "--cpus", "2", machine=PC)
    assert run.status == 3
    assert "at the shutdown on CPU 1" in run.words
    assert re.search(r"Cause: #GP\(0x8\) at 0x12: jmp far uses the selector 0x8, .*not a GDT", run.words, re.DOTALL)
    assert re.search(r"CPU 0 executes at 0038:[0-9a-f]+ (wait|efi_main)\+0x[0-9a-f]+ \(processors\.c:\d+\)", run.words)


@pytest.mark.soak
@pytest.mark.parametrize("options", [(), ("--isolate",)], ids=["open", "isolated"])
@pytest.mark.parametrize("mask", ["none", "all"])
def test_a_boot_loader_starts_a_kernel_from_a_folder(mask, options, kernel, tmp_path):
    try:
        loader = efi_guests.grub_chain()
        find_uefi()
    except (testguests.Unobtainable, ProcessorMissing) as reason:
        pytest.skip(str(reason))
    boot = tmp_path / "esp" / "EFI" / "BOOT"
    boot.mkdir(parents=True)
    shutil.copy(loader, boot / "BOOTX64.EFI")
    shutil.copy(kernel(RF=0).image, tmp_path / "esp" / "kernel")
    plain = on_qemu_alone(tmp_path / "esp", *PC, firmware=firmware(tmp_path))
    run = under_trapline(tmp_path / "esp", mask, *options, machine=(*PC, *DEBUG_EXIT))
    assert (run.status, plain.status) == (0, 1)
    assert b"\nhash " in plain.console
    assert_same(run.console, plain.console)


@pytest.mark.parametrize(
    ("mask", "options"), [("all", ()), soak("none", ()), soak("none", ("--isolate",)), soak("all", ("--isolate",))]
)
def test_a_loader_starts_a_kernel_in_the_higher_half(mask, options, loaded, tmp_path):
    """As Limine does. The kernel ends in a triple fault."""
    folder, kernel = loaded
    records = tmp_path / "records.jsonl"
    plain = on_qemu_alone(folder, *PC, firmware=firmware(tmp_path))
    words = ("--symbols", str(kernel), "-o", str(records), *options)
    run = under_trapline(folder, mask, *words, machine=(*PC, *DEBUG_EXIT))
    assert plain.console.endswith(b"\nkernel: up\r\nkernel: #UD #GP #PF 333\r\n")
    assert_same(run.console, plain.console)
    assert (run.status, plain.status) == (3, 0)
    found = [(record["vector"], record["symbol"].partition("+")[0]) for record in read_lines(records)]
    of_kernel = [pair for pair in found if pair[1] in ("kernel_main", "write_wild")]
    wild = [(14, "write_wild"), (13, "write_wild"), (8, "write_wild"), (13, "write_wild")]
    assert of_kernel == ([*3 * [(vector, "kernel_main") for vector in (6, 13, 14)], *wild] if mask == "all" else [])
    assert re.search(r"Cause:.*IDT", run.words), run.words
