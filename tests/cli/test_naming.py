"""Names in what a run says: live lines, records, summary, where a guest crashed."""

import json
import subprocess

import pytest

from tests import lines
from tests.programs.kernel import build_kernel
from trapline.machine.scripted import vmexit


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if missing := build_kernel.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    return build_kernel.build(tmp_path_factory.mktemp("kernel"))


FAULTY = """
__attribute__((section(".multiboot"), used)) static const unsigned header[] = {0x1badb002, 0, -0x1badb002u};
char stack[4096] __attribute__((aligned(16)));
__asm__(".globl entry\\nentry:\\n mov $stack + 4096, %esp\\n xor %ebp, %ebp\\n call outer\\n");
__attribute__((noinline)) int inner(int *place)
{
    *place = 1;
    __asm__ volatile("ud2");
    return *place + 1;
}
__attribute__((noinline)) int middle(int *place) { return inner(place) + 1; }
int outer(void)
{
    int place;
    return middle(&place) + 1;
}
"""


def build_faulty(folder, *options):
    """Build a 32-bit multiboot kernel without an IDT, with symbols and DWARF of its own."""
    if missing := build_kernel.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    (folder / "faulty.c").write_text(FAULTY)
    options = ["-m32", "-g", "-O1", "-ffreestanding", "-fno-pic", "-nostdlib", "-static", *options]
    options += ["-fno-optimize-sibling-calls", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"]
    link = [
        "-Wl,-Ttext=0x101000",
        "-Wl,--section-start=.multiboot=0x100000",
        "-Wl,-e,entry",
        "-Wl,--build-id=none",
        "-Wl,-n",
    ]
    subprocess.run(["gcc", *options, *link, "faulty.c", "-o", "faulty"], cwd=folder, check=True)
    return folder / "faulty"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """That kernel without frame pointers: the stack alone does not lead to its callers."""
    return build_faulty(tmp_path_factory.mktemp("faulty"), "-fomit-frame-pointer")


@pytest.mark.slow
def test_live_lines_and_records_of_a_kernel_with_dwarf(trapline_command, built, tmp_path):
    output = tmp_path / "records"
    words = ["--live", "--console", tmp_path / "console", "-o", output, "--symbols", built.symbols]
    done = trapline_command("run", built.image, "--processor", "unicorn", "--timeout", "60", *words)
    assert done.status == 0
    line = next(line for line in done.err.splitlines() if line.startswith("#DE"))
    assert "selftest+0x" in line
    assert "(selftest.c:29 in faults, inlined at selftest.c:" in line
    user = next(line for line in done.err.splitlines() if line.startswith("#GP") and "cpl 3" in line)
    assert "user_main+0x" in user
    records = lines.records(output.read_text())
    named = [record for record in records if "symbol" in record]
    assert named[0]["symbol"].startswith("selftest+0x")
    assert named[0]["source"] == "selftest.c:29"
    table = done.err[done.err.index("first at") :]
    assert "selftest.c:29" in table
    assert max(map(len, table.split("\n\n")[0].splitlines()[:-1])) <= 80


def test_where_a_guest_shut_down(trapline_command, faulty):
    done = trapline_command("run", faulty, "--processor", "unicorn", "--timeout", "30")
    assert done.status == 3
    said = done.err.splitlines()
    title = next(number for number, line in enumerate(said) if line.startswith("code, in "))
    assert said[title].startswith("code, in inner+0x")
    assert said[title].endswith("(faulty.c:8)")
    (marked,) = [line for line in said if line.startswith("->0")]
    assert marked.endswith("ud2")
    called = said.index("called from")
    callers = [line.split()[1].split("+")[0] for line in said[called + 1 : called + 4]]
    assert callers == ["middle", "outer", "entry"]
    assert "#UD" in said[said.index("why it shut down") + 1]
    assert "inner+0x" in done.err[done.err.index("why it shut down") :]
    code = said[title : called + 4]
    assert max(map(len, code)) <= 80


def test_callers_are_a_guess_where_symbols_do_not_tell(trapline_command, tmp_path):
    faulty = build_faulty(tmp_path, "-fno-omit-frame-pointer")
    subprocess.run(["objcopy", "--remove-section", ".debug_frame", faulty], check=True)
    said = trapline_command("run", faulty, "--processor", "unicorn", "--timeout", "30").err.splitlines()
    called = said.index("called from, by frame pointers: a guess")
    assert [line.split()[1].split("+")[0] for line in said[called + 1 : called + 4]] == ["middle", "outer", "entry"]


def test_the_other_syntax_and_json(trapline_command, faulty, tmp_path):
    words = ["--processor", "unicorn", "--timeout", "30", "--syntax", "att", "--json"]
    done = trapline_command("run", faulty, *words)
    summary = json.loads(done.out)
    (at,) = [line for line in summary["crash"]["code"] if line["at"]]
    assert (at["text"], at["bytes"]) == ("ud2", "0f0b")
    assert any("%" in line["text"] for line in summary["crash"]["code"])
    assert [(caller["symbol"].split("+")[0], caller["guessed"]) for caller in summary["crash"]["callers"]] == [
        ("middle", False),
        ("outer", False),
        ("entry", False),
    ]
    (row,) = [row for row in summary["counts"] if row["name"] == "#UD"]
    assert row["first_symbol"].startswith("inner+0x")
    assert row["first_source"] == "faulty.c:8"
    assert summary["last"][0]["source"] == "faulty.c:8"


def test_a_sample_has_no_symbols_and_shows_its_stack(trapline_command):
    done = trapline_command("run", "sample:no-idt", "--timeout", "30")
    assert done.status == 3
    assert "\ncode\n" in done.err
    assert "\nstack at 0x" in done.err
    assert "called from" not in done.err


def test_a_stored_run_is_explained_with_names(trapline_command, faulty, tmp_path):
    output = tmp_path / "records"
    trapline_command("run", faulty, "--processor", "unicorn", "--timeout", "30", "-o", output)
    assert "inner+0x" not in trapline_command("explain", output).out
    done = trapline_command("explain", output, "--symbols", faulty)
    assert "inner+0x" in done.out
    assert "(faulty.c:8)" in " ".join(done.out.split())


def test_a_slide_by_hand(trapline_command, disk, play, built, tmp_path):
    play(vmexit(0x46))
    done = trapline_command("run", disk, "--live", "--symbols", f"{built.symbols}@{0xFFFF_FFF0 - 0x101000:#x}")
    assert "start+0x0 (boot.S:16)" in done.err


LINUX = """\
ffffffff81a00000 T entry_SYSCALL_64
ffffffff81a00100 T asm_exc_page_fault
ffffffff81a00200 T asm_exc_general_protection
ffffffff81a00300 T asm_exc_invalid_op
"""


def test_a_linux_that_is_not_seen_names_nothing(trapline_command, disk, play, tmp_path):
    path = tmp_path / "System.map"
    path.write_text(LINUX)
    play(vmexit(0x46))
    done = trapline_command("run", disk, "--symbols", path)
    assert done.status == 0
    assert f"{path} was not used" in done.err
    refused = trapline_command("explain", path, "--symbols", path)
    assert refused.status == 2
    assert "@SLIDE" in refused.err


@pytest.mark.parametrize("name", ["nothing-there", "nothing-there@0x1000"])
def test_a_symbol_file_that_is_not_there(trapline_command, disk, name):
    done = trapline_command("run", disk, "--symbols", name)
    assert (done.status, done.err) == (2, "trapline: nothing-there: No such file or directory\n")


def test_a_symbol_file_that_is_none(trapline_command, disk):
    done = trapline_command("run", disk, "--symbols", disk)
    assert done.status == 2
    what = "neither ELF nor PE nor lines of a System.map or of kallsyms"
    assert done.err == f"trapline: {disk}: not a symbol file: {what}\n"
