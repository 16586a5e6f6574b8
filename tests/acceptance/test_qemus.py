"""A short set of guests on every QEMU at hand: the one that is installed, Debian 13's and Debian unstable's."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.acceptance.runs import (
    LIMIT,
    QEMU,
    assert_same,
    command,
    on_qemu_alone,
    read_lines,
    summed_up,
    trapline,
    under_trapline,
    wait_for,
)
from tests.acceptance.software import LINUX
from tests.acceptance.test_kernel import UNDELIVERED, without
from tests.acceptance.test_machines import sample_on
from tests.acceptance.test_scan import different, listed, scanned
from tools import qemus
from tools.testguests import Unobtainable
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, AX, BL, BX, CX, DS, DX, EAX, EBP, ESP, SS, Mem
from trapline.guests.samples import find_sample
from trapline.processors.qemu.launch import facts_of
from trapline.processors.qemu.programs import find_qemu

ORIGIN, EXIT_PORT = 0x7C00, 0xF4
INSTALLED = "installed"
SAMPLES = ("ud", "ts", "demand-paging", "ring3", "double-fault", "stack-overflow")
BOTH = ("none", "all")
FLOOD = 60_000
"""Letters: less than a pipe of plain QEMU holds."""
NEWER = pytest.mark.parametrize("qemu", qemus.RELEASES, indirect=True)
"""For what other tests try on the QEMU that is installed."""
*_OLDER, _NEWEST = qemus.RELEASES
NEWEST = pytest.mark.parametrize(
    "qemu", [*(pytest.param(each, marks=pytest.mark.soak) for each in _OLDER), _NEWEST], indirect=True
)
"""For what takes long."""


@pytest.fixture(scope="module", params=[INSTALLED, *qemus.RELEASES], autouse=True)
def qemu(request):
    """Put a QEMU first on PATH; returns the program."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != INSTALLED:
            try:
                program = qemus.program(request.param)
            except Unobtainable as reason:
                pytest.skip(str(reason))
            patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        yield find_qemu(QEMU)


def interrupt_vectors(code, handlers):
    """Set SS:SP and let vectors of real mode lead to labels."""
    code.cli()
    code.mov(AX, 0)
    code.mov(DS, AX)
    code.mov(SS, AX)
    code.mov(ESP, ORIGIN)
    for vector in handlers:
        code.mov(Mem(None, 4 * vector + 2, size=16), AX)
    code.mov(BX, 0)


def boot_sector(handlers, body):
    """Return a disk whose boot sector executes `body`, and ends with BL as its value.

    `handlers` maps vectors to functions that write their handlers, IRET included.
    """

    def build(addresses):
        code = Assembler(16)
        interrupt_vectors(code, handlers)
        for vector in handlers:
            code.mov(Mem(None, 4 * vector, size=16), addresses.get(f"handler {vector}", ORIGIN))
        body(code)
        code.mov(AL, BL)
        code.out(EXIT_PORT, AL)
        code.label("stop")
        code.hlt()
        code.jmp("stop")
        for vector, write in handlers.items():
            code.label(f"handler {vector}")
            write(code)
        return code

    addresses = build({}).labels(ORIGIN)
    sector = build(addresses).assemble(ORIGIN)
    assert len(sector) <= 510
    return sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(512)


def count(code):
    code.inc(BX)
    code.iret()


def skip(length, amount=1):
    """Return a handler that skips an instruction of some bytes."""

    def handler(code):
        code.add(BX, amount)
        code.mov(EBP, ESP)
        code.add(Mem(EBP, 0, size=16), length)
        code.iret()

    return handler


def end_of_interrupt(code):
    code.push(AX)
    code.mov(AL, 0x20)
    code.out(0x20, AL)
    code.pop(AX)
    code.iret()


def int1_twice(code):
    code.int1()
    code.int1()


def reserved_bits(code):
    """MOV to CR4 with bits that no CPU has, twice."""
    code.mov(EAX, 0x8000_0000)
    code.mov(operands.CR4, EAX)
    code.mov(operands.CR4, EAX)


def halt_under_tf(code):
    """Five HLTs, each ended by the timer, with TF set around them."""
    code.mov(AL, 0xFE)
    code.out(0x21, AL)
    code.mov(CX, 5)
    code.pushf()
    code.pop(AX)
    code.or_(AX, 0x300)
    code.push(AX)
    code.popf()
    code.label("halt")
    code.hlt()
    code.dec(CX)
    code.jne("halt")
    code.pushf()
    code.pop(AX)
    code.and_(AX, 0xFFFF & ~0x300)
    code.push(AX)
    code.popf()


GUESTS = {
    "INT1": (boot_sector({Vector.DB: count, Vector.UD: skip(1)}, int1_twice), (Vector.DB, Vector.UD)),
    "HLT under TF": (boot_sector({Vector.DB: count, 8: end_of_interrupt}, halt_under_tf), (Vector.DB,)),
}
"""Disks, and the vectors that each counts in its value."""


@pytest.mark.parametrize("name", GUESTS)
def test_each_exception_that_a_guest_gets_is_recorded(name, tmp_path):
    disk, vectors = GUESTS[name]
    image = tmp_path / "guest.img"
    image.write_bytes(disk)
    plain = on_qemu_alone(image)
    assert plain.status > 1
    assert_counted(image, tmp_path, plain.status >> 1, vectors)


def assert_counted(image, folder, value, vectors):
    """Run a guest that ends with how many exceptions it got."""
    for mask in BOTH:
        run = summed_up(image, mask, folder)
        assert run.summary["debug_exit"] == value << 1 | 1
        counts = run.counts()
        assert sum(counts.get(vector, 0) for vector in vectors) == (value if mask == "all" else 0)


def test_a_refused_cr4_raises_a_protection_fault(tmp_path):
    """By itself QEMU takes it for an exit of a guest, and hangs: helper_write_crN, cpu_vmexit."""
    image = tmp_path / "guest.img"
    image.write_bytes(boot_sector({Vector.GP: skip(3)}, reserved_bits))
    assert_counted(image, tmp_path, 2, (Vector.GP,))


def exit_early(code):
    """End with 5, and raise #UD a few times after that: newer QEMUs let the guest run on for a while."""
    code.mov(AL, 5)
    code.out(EXIT_PORT, AL)
    for _ in range(8):
        code.ud2()


@pytest.mark.parametrize("mask", BOTH)
def test_the_out_to_the_debug_exit_is_the_end(mask, tmp_path):
    image = tmp_path / "guest.img"
    image.write_bytes(boot_sector({Vector.UD: skip(2)}, exit_early))
    run = summed_up(image, mask, tmp_path)
    assert run.summary["debug_exit"] == 5 << 1 | 1
    assert run.counts() == {}


def write_without_waiting(code):
    code.mov(DX, 0x3F8)
    code.mov(AL, ord("."))
    code.mov(CX, FLOOD)
    code.label("next")
    code.out(DX, AL)
    code.dec(CX)
    code.jne("next")


def test_a_guest_that_does_not_wait_for_the_transmitter_loses_nothing(tmp_path):
    image = tmp_path / "guest.img"
    image.write_bytes(boot_sector({}, write_without_waiting))
    for mask in BOTH:
        assert summed_up(image, mask, tmp_path).console.count(b".") == FLOOD


@NEWER
@pytest.mark.parametrize("bits", [36, 39])
def test_a_cpu_may_have_few_address_bits(bits):
    done = sample_on("-cpu", f"qemu64,phys-bits={bits}")
    assert (done.status, done.console.splitlines()[-1]) == (0, b"done"), done.words


@NEWER
@pytest.mark.parametrize("model", ["qemu32", "pentium3"])
def test_a_cpu_without_long_mode_is_refused(model):
    done = sample_on("-cpu", model)
    assert done.status == 2
    assert f"'s CPU {model} has no long mode" in done.words


@NEWER
def test_a_machine_without_default_devices_has_its_console():
    done = sample_on("-nodefaults")
    assert (done.status, done.console.splitlines()[-1]) == (0, b"done")


@NEWER
@pytest.mark.parametrize("guest", ["sleep", "smm"])
def test_a_guest_that_leaves_its_code_sees_the_same(guest, image):
    plain, run = on_qemu_alone(image(guest)), under_trapline(image(guest), "all")
    assert_same(run.console, plain.console)
    assert (run.status, plain.status) == (0, 1)


@NEWER
@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_ends_the_same(name, tmp_path):
    image = tmp_path / "sample"
    image.write_bytes(find_sample(name).build())
    plain = on_qemu_alone(image)
    for mask in BOTH:
        run = under_trapline(image, mask)
        assert_same(run.console, plain.console)
        assert run.status == (0 if plain.console.endswith(b"done\n") else 3), run.words


@NEWER
def test_a_scan_finds_what_the_readme_lists(image):
    scan = image("scan")
    plain, run = on_qemu_alone(scan, debug_exit=()), under_trapline(scan, "all")
    assert different(scanned(plain), scanned(run)) == listed()


def test_isolation_works_or_is_refused_in_words(qemu, tmp_path):
    run = under_trapline("sample:ud", "all", "--isolate")
    if facts_of(qemu).nests_in_real_mode:
        assert run.console.endswith(b"done\n")
        assert run.status == 0
    else:
        assert run.status == 2
        assert "--isolate cannot be used" in run.words


@NEWER
def test_the_fault_matrix_of_long_mode_is_the_same(image):
    """It loads CR3, CR0 and CR4 with everything that is refused."""
    guest = image("long", QUIET=1)
    plain, run = on_qemu_alone(guest), under_trapline(guest, "all")
    assert_same(run.console, plain.console)
    assert run.status == 0


@NEWER
def test_the_kernel_sees_the_same_and_each_of_its_exceptions_is_recorded(kernel, tmp_path):
    built = kernel(**without("qemu")).image
    plain = on_qemu_alone(built)
    none, all_ = (summed_up(built, mask, tmp_path) for mask in BOTH)
    for run in (none, all_):
        assert_same(run.console, plain.console)
        assert run.status == 0
    told = {int(vector): int(number) for vector, number in re.findall(rb" (\d+)=(\d+)", plain.console)}
    assert {vector: all_.counts().get(vector, 0) for vector in told} == {
        **told,
        Vector.PF: told[Vector.PF] + UNDELIVERED,
    }


@NEWEST
def test_linux_boots_the_same_with_everything_forced(tmp_path):
    if reason := LINUX.skip_reason():
        pytest.skip(reason)
    consoles = []
    for mask in BOTH:
        seconds = 4 * LIMIT
        done = trapline("run", *LINUX.guest_arguments(), "-e", mask, "--timeout", str(seconds), limit=seconds)
        assert done.status == 0, done.words
        consoles.append(LINUX.normalise(done.console.decode(errors="replace")))
    assert consoles[0] == consoles[1]
    assert LINUX.started in consoles[0]


@NEWER
@pytest.mark.parametrize("victim", ["QEMU", "trapline"])
def test_nothing_is_left_of_a_run_that_is_killed(start, image, tmp_path, victim):
    output = tmp_path / "records.jsonl"
    run = start(command(image("udloop", N=4_000_000_000, WAIT=100_000), "all", "-o", str(output)))
    wait_for(lambda: output.exists() and output.stat().st_size > 100_000, "records")
    qemu = run.qemu
    os.kill(qemu if victim == "QEMU" else run.process.pid, signal.SIGKILL)
    assert run.wait() == (1 if victim == "QEMU" else -signal.SIGKILL)
    assert len(read_lines(output)) > 100
    run.assert_nothing_is_left(qemu)


def test_doctor_says_what_it_does(qemu):
    done = trapline("doctor")
    printed = done.console.decode()
    assert done.status == 0, printed
    assert str(Path(qemu)) in printed
    assert f"INT1           raises {'#DB' if facts_of(qemu).knows_int1 else '#UD'}" in printed
