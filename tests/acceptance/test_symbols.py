"""Debian's kernel starts as on QEMU alone, and names its page faults by the kallsyms of a boot at another place."""

import re

import pytest

from tests.acceptance import software
from tests.acceptance.runs import read_lines, summed_up
from tools import testguests
from trapline.arch.vectors import Vector


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Return a boot with every exception forced and recorded, and its records."""
    if reason := software.LINUX.skip_reason():
        pytest.skip(reason)
    try:
        kallsyms = testguests.linux_kallsyms()
    except testguests.Unobtainable as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("named")
    files = software.LINUX.obtain()
    output = folder / "records"
    words = ["--initrd", files.initrd, "--append", software.LINUX.append, "-o", output, "--symbols", kallsyms]
    words += ["--memory", software.LINUX.memory]
    run = summed_up(files.guest, "all", folder, *map(str, words), machine=software.PC)
    assert run.status == 0, run.words
    return run, list(read_lines(output)), kallsyms


def test_linux_starts_as_on_qemu_alone(named, tmp_path):
    run, _, _ = named
    plain = software.run_plain(software.LINUX, tmp_path)
    assert software.LINUX.normalise(run.console.decode().replace("\r", "")) == plain.text
    assert (run.summary["ending"], run.summary["exit_code"], plain.status) == ("off", 0, 0)
    assert run.counts()[Vector.PF] > 10_000


def test_page_faults_of_the_kernel_carry_names(named):
    run, records, _ = named
    kernel = [record for record in records if record["cpl"] == 0 and record["vector"] == Vector.PF]
    with_names = [record["symbol"] for record in kernel if "symbol" in record]
    assert len(with_names) > 0.9 * len(kernel)
    assert any(
        name.startswith(("copy_user", "rep_movs", "clear_user", "__put_user", "__get_user")) for name in with_names
    )
    (row,) = [row for row in run.summary["counts"] if row["name"] == "#PF"]
    assert {"first_symbol", "last_symbol"} & row.keys()


def test_the_kernels_own_breakpoint_is_where_it_says(named):
    _, records, _ = named
    first = next(record for record in records if record["vector"] == Vector.BP and record["cpl"] == 0)
    assert first["symbol"] == "int3_selftest_ip+0x0"


def test_no_address_of_a_program_has_a_name_of_the_kernel(named):
    _, records, _ = named
    user = [record for record in records if record["cpl"] == 3]
    assert len(user) > 1000
    assert not [record for record in user if "symbol" in record]


def test_it_lay_elsewhere_in_the_boot_that_gave_the_names(named):
    _, records, kallsyms = named
    lines = kallsyms.read_text().splitlines()
    there = next(int(line.split()[0], 16) for line in lines if line.endswith(" int3_selftest_ip"))
    here = next(int(record["rip"], 16) for record in records if record.get("symbol") == "int3_selftest_ip+0x0")
    assert (here - there) % (1 << 21) == 0


def test_a_null_pointer_is_where_the_kernel_says(tmp_path):
    try:
        kernel, kallsyms = testguests.linux_kernel(), testguests.linux_kallsyms()
        initrd = testguests.crashing_initrd()
    except testguests.Unobtainable as reason:
        pytest.skip(str(reason))
    output = tmp_path / "records"
    words = ["--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", "-o", output, "--symbols", kallsyms]
    run = summed_up(kernel, "all", tmp_path, *map(str, words))
    assert run.summary["ending"] == "reset"
    said = re.search(rb"RIP: 0010:(\w+\+0x[0-9a-f]+)/", run.console)
    null = next(record for record in read_lines(output) if record["address"] == "0x0" and record["cpl"] == 0)
    assert null["symbol"] == said[1].decode()
