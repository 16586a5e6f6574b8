"""Logs of QEMU: a hand-written excerpt for each rule, and what QEMU itself writes of our samples."""

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.typed import CHARACTERS
from trapline.errors import UsageError
from trapline.guests.samples import SAMPLES, sample_guest
from trapline.symbols import Symbol
from trapline.trace.qemu_log import records

STATE = """\
RAX=0000000000000000 RBX=0000000000009500 RCX=00000000c0000080 RDX=0000000000000000
RIP=000000000010131c RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0008 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
CR0=80050033 CR2=0000000000110ff8 CR3=000000000010a000 CR4=00000620
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000501
"""


def delivered(vector, code=0, soft=0, cr2="", number=0):
    tail = f"CR2={cr2}" if cr2 else "env->regs[R_EAX]=0000000000000000"
    return (
        f"{number:6}: v={vector:02x} e={code:04x} i={soft} cpl=0 IP=0008:000000000010131c pc=000000000010131c"
        f" SP=0010:0000000000111000 {tail}\n{STATE}"
    )


def raised(new, old=0xFFFFFFFF):
    return f"check_exception old: {old:#x} new {new:#x}\n"


def read(text, lookup=None):
    return [json.loads(line) for line in records(text.splitlines(keepends=True), lookup)]


def test_a_page_fault():
    (record,) = read(raised(14) + delivered(14, 2, cr2="0000000000110ff8"))
    event = {"vector": 14, "type": "exception", "error_code": 2}
    assert record == {
        "seq": 0, "vector": 14, "name": "#PF", "error_code": 2, "address": "0x110ff8", "cpl": 0, "cs": "0x8",
        "cs_base": "0x0",
        "rip": "0x10131c", "ss": "0x10", "rsp": "0x111000", "rflags": "0x46", "cr0": "0x80050033", "cr3": "0x10a000",
        "cr4": "0x620", "efer": "0x501", "dr6": "0xffff0ff0", "outcome": "forwarded", "injected": event,
    }  # fmt: skip


def test_a_triple_fault():
    log = raised(14) + delivered(14, 2, cr2="1000") + raised(13, 14) + delivered(8) + raised(11, 8) + "Triple fault\n"
    found = read(log)
    assert [record["name"] for record in found] == ["#PF", "#GP", "#DF", "#NP"]
    assert [record["outcome"] for record in found] == ["forwarded", "combined", "forwarded", "shutdown"]
    assert [record["seq"] for record in found] == [0, 1, 2, 3]
    assert found[1]["vectoring"] == {"vector": 14, "type": "exception", "error_code": 2}
    assert found[3]["vectoring"] == {"vector": 8, "type": "exception", "error_code": 0}
    assert "rip" not in found[1]
    assert "rip" not in found[3]


@pytest.mark.parametrize(
    ("old", "new", "combined"),
    [(14, 14, True), (14, 13, True), (13, 14, False), (13, 11, True), (0, 10, True), (14, 6, False), (13, 1, False)],
)
def test_what_combines(old, new, combined):
    found = read(raised(old) + delivered(old) + raised(new, old) + delivered(8 if combined else new))
    assert [record["vector"] for record in found] == [old, *([new, 8] if combined else [new])]
    assert found[1]["vectoring"]["vector"] == old


@pytest.mark.parametrize(
    ("log", "vectors"),
    [
        (raised(6), [6]),  # real mode
        (delivered(3, soft=1), [3]),  # INT3
        (delivered(4, soft=1), [4]),
        (delivered(0x10, soft=1), []),  # INT 0x10
        (delivered(0x80, soft=1), []),
        ("Servicing hardware INT=0x08\n" + delivered(8), []),
        ("Servicing hardware INT=0x08\n" + delivered(3, soft=1), [3]),  # the interrupt came in real mode
        ("Servicing hardware INT=0x20\n" + delivered(0x20), []),
        (delivered(2), []),  # an NMI
        (raised(13) + "Servicing hardware INT=0x0d\n" + delivered(13), [13]),
        (raised(6) + delivered(6) + delivered(6), [6, 6]),
        ("CPU Reset (CPU 0)\n" + STATE, []),
        (raised(0x40), []),
    ],
)
def test_what_is_an_exception(log, vectors):
    assert [record["vector"] for record in read(log)] == vectors


def test_what_is_unknown_is_left_out():
    (record,) = read(raised(6))
    assert record == {"seq": 0, "vector": 6, "name": "#UD"}


def test_lines_of_other_options_change_nothing():
    noise = "IN: main\n0x00101000:  0f 0b  ud2\n" + STATE.replace("00000046", "00000fff")
    log = noise + raised(6) + delivered(6) + noise
    assert read(log)[0]["rflags"] == "0x46"


def test_names():
    def lookup(address):
        assert address == 0x10131C
        return Symbol("main", 4, "main.c", 7)

    (record,) = read(raised(6) + delivered(6), lookup)
    assert (record["symbol"], record["source"]) == ("main+0x4", "main.c:7")


@pytest.mark.parametrize("text", ["", "hello\n", STATE, '{"seq":0}\n', "\x00\x01\n"])
def test_what_is_no_log(text):
    with pytest.raises(UsageError, match="not a log of qemu -d int"):
        read(text)


LINES = st.sampled_from(
    [raised(14), raised(13, 14), raised(14, 8), delivered(8), delivered(14, 2, cr2="8"), STATE]
) | st.text(CHARACTERS)


@given(st.lists(LINES))
def test_any_text_is_a_log_or_refused(parts):
    try:
        found = read("Triple fault\n" + "".join(parts))
    except UsageError:
        pytest.fail("it has a line of QEMU's")
    assert [record["seq"] for record in found] == list(range(len(found)))


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize(
    "sample",
    [row for row in SAMPLES if not row.name.endswith("-loop") and row.cpus == 1],
    ids=lambda sample: sample.name,
)
def test_what_qemu_writes_of_a_sample(sample, tmp_path):
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed")
    image, log = tmp_path / "image", tmp_path / "log"
    image.write_bytes(sample_guest(sample.name).content)
    command = [
        "qemu-system-x86_64",
        "-cpu",
        "qemu64,-svm",
        "-m",
        "32M",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]
    command += ["-kernel", image, "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-d", "int,cpu_reset", "-D", log]
    subprocess.run(command, timeout=30, check=False)
    found = read(log.read_text())
    assert {record["vector"] for record in found} >= set(sample.vectors) - NOT_ON_TCG
    if sample.end.value == "triple fault":
        assert found[-1]["outcome"] == "shutdown"
    else:
        assert {record["outcome"] for record in found} <= {"forwarded", "combined"}


NOT_ON_TCG = {19, 17}
"""#XM and #AC: TCG raises neither."""
