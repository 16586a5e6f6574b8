"""What is written as QEMU's log is read from it again."""

import json

import pytest

import trapline
from trapline.trace.qemu_log import records
from trapline.trace.reading import Reading

pytest.importorskip("pyarrow")
from trapline.report.qemu_blocks import block
from trapline.trace.questions.rows import rows


def blocks(path):
    with Reading([str(path)]) as reading:
        return [line for row in rows(reading, registers=True) for line in block(row)]


@pytest.mark.parametrize("sample", ["ring3", "gate-not-present", "double-fault"])
def test_it_can_be_imported(sample, tmp_path):
    path = tmp_path / "run.jsonl"
    trapline.run(f"sample:{sample}", exceptions="all", timeout=60, output=path)
    stored = [line for line in map(json.loads, path.read_text().splitlines()) if "type" not in line]
    read = [json.loads(line) for line in records(f"{line}\n" for line in blocks(path))]
    assert [record["vector"] for record in read] == [record["vector"] for record in stored]
    for ours, theirs in zip(stored, read, strict=True):
        for name in theirs.keys() - {"efer", "vectoring"}:
            assert theirs[name] == ours[name], (sample, name)


def test_a_block_of_32_bits(tmp_path):
    path = tmp_path / "run.jsonl"
    record = {
        "seq": 7,
        "vector": 3,
        "name": "#BP",
        "cpl": 0,
        "cs": "0x8",
        "cs_base": "0x10",
        "rip": "0x7c00",
        "ss": "0x10",
        "rsp": "0x7000",
        "rflags": "0xcd7",
        "cr0": "0x11",
        "cr3": "0x0",
        "cr4": "0x0",
        "efer": "0x1000",
        "dr6": "0x1",
        "injected": {"vector": 3, "type": "soft", "error_code": None},
        **dict.fromkeys(("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16))), "0x1"),
    }
    path.write_text(json.dumps(record) + "\n")
    tail = "env->regs[R_EAX]=0000000000000001"
    assert blocks(path) == [
        f"     7: v=03 e=0000 i=1 cpl=0 IP=0008:{0x7C00:016x} pc={0x7C10:016x} SP=0010:{0x7000:016x} {tail}",
        "EAX=00000001 EBX=00000001 ECX=00000001 EDX=00000001",
        "ESI=00000001 EDI=00000001 EBP=00000001 ESP=00007000",
        "EIP=00007c00 EFL=00000cd7 [DOSZAPC] CPL=0",
        "CS =0008 00000010",
        "SS =0010",
        "CR0=00000011 CR3=00000000 CR4=00000000",
        "DR6=00000001",
        "EFER=0000000000000000",
    ]


def test_a_record_that_lacks_its_state(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"seq":0,"vector":13,"name":"#GP","vectoring":{"vector":14,"type":"exception","error_code":2}}\n')
    assert blocks(path) == ["check_exception old: 0xe new 0xd"]
