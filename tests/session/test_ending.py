"""What is told of guests that end inside the handler of an exception, and of those that only look so."""

import json
import re
import struct

import pytest

from trapline.api import run
from trapline.arch.vectors import Vector
from trapline.cli.main import main
from trapline.explain.explanation import AT_END
from trapline.explain.first_exceptions import KEPT
from trapline.report.result import Ending
from trapline.report.text import in_handler, last_exceptions, report, screen

CODE, UD_AT, GP_AT, IDT, PLACE = 0x10_0000, 0x100, 0x180, 0x200, 0x400
UD2 = b"\x0f\x0b"
HALT = b"\xfa\xf4\xeb\xfc"
"""cli; hlt, again and again."""
SKIP = b"\x48\x83\x04\x24\x02\x48\xcf"
"""add qword [rsp], 2; iretq."""
DEEPER = b"\x48\x81\xec\x00\x01\x00\x00"
"""sub rsp, 0x100: below what was pushed."""
BAD_LOAD = b"\x66\xb8\xf8\xff\x8e\xd8"
"""mov ax, 0xfff8; mov ds, ax: #GP."""


def guest(main, ud, gp=HALT):
    """Return 64-bit code with handlers of #UD and #GP."""
    lidt = b"\x0f\x01\x1c\x25" + struct.pack("<I", CODE + PLACE)
    gates = {Vector.UD: CODE + UD_AT, Vector.DF: CODE + GP_AT, Vector.GP: CODE + GP_AT}
    table = b"".join(
        struct.pack("<HHHHQ", gates[v] & 0xFFFF, 8, 0x8E00, gates[v] >> 16, 0) if v in gates else bytes(16)
        for v in range(Vector.GP + 1)
    )
    code = (lidt + main).ljust(UD_AT, b"\x90") + ud.ljust(GP_AT - UD_AT, b"\x90") + gp.ljust(IDT - GP_AT, b"\x90")
    return code + table.ljust(PLACE - IDT, b"\0") + struct.pack("<HQ", len(table) - 1, CODE + IDT)


def ran(main, ud, gp=HALT, **options):
    return run(guest(main, ud, gp), entry_mode=64, load_address=CODE, processor="unicorn", **options)


def vectors(done):
    return [each.record.vector for each in done.unreturned]


@pytest.mark.parametrize(
    "handler",
    [
        HALT,
        b"\x50\xe8\x01\x00\x00\x00\xcc\xfa\xf4",  # push rax; call the cli; hlt behind
        b"\x48\x8d\x05\x02\x00\x00\x00\xff\xe0" + HALT,  # lea rax; jmp rax: where to, only RAX knows
        b"\x48\x83\xec\x40\xeb\x02\x0f\x0b" + HALT,  # sub rsp, 0x40; jmp over
    ],
    ids=["halts", "calls", "jumps by a register", "makes room"],
)
def test_a_halt_in_a_handler_is_not_a_success(handler):
    done = ran(UD2, handler)
    assert (done.ending, vectors(done), done.exit_code) == (Ending.HALTED, [Vector.UD], 5)
    assert in_handler(done) == "the guest halted in its handler of #UD"
    assert "ud2 always raises #UD" in "\n".join(report(done))
    assert done.crash is not None
    assert done.crash.halted


@pytest.mark.parametrize("after", [HALT, DEEPER + HALT, DEEPER + b"\xe8\x00\x00\x00\x00" + HALT])
def test_a_handler_that_returned_is_not_accused(after):
    done = ran(UD2 + after, SKIP)  # the frame stays in memory, below or above RSP
    assert (done.ending, done.recorded, vectors(done), done.exit_code) == (Ending.HALTED, 1, [], 0)
    assert in_handler(done) is None


def test_the_last_exception_and_the_first_are_told():
    done = ran(UD2, BAD_LOAD)
    assert vectors(done) == [Vector.GP, Vector.UD]
    told = " ".join("\n".join(report(done)).split())
    assert "halted in its handler of #GP; the first that it never came back from is #UD" in told
    assert "mov uses the selector 0xfff8" in told  # AX is from the record: it was another since
    assert done.to_json()["unreturned"][1]["name"] == "#UD"


def test_a_delivery_that_failed_is_told_of_the_exception_that_came_of_it(tmp_path, capsys):
    output = tmp_path / "run.jsonl"
    done = ran(b"\xcd\x05", HALT, output=output)  # int 5, whose gate is empty
    assert vectors(done) == [Vector.GP]
    (explanation,) = (each.explanation for each in done.unreturned)
    assert explanation.causes == ("IDT entry 5 (#BR) is empty (all zero), not an interrupt or trap gate.",)
    assert main(["explain", str(output)]) == 0
    assert "Cause: IDT entry 5 (#BR) is empty" in capsys.readouterr().out


def test_a_guest_that_is_stopped_while_it_handles_an_exception_is_not_accused():
    slow = b"\xba\x40\x0d\x03\x00\xff\xca\x75\xfc"  # mov edx, 200000; dec edx, jnz: nearly all of its time
    done = ran(UD2 + b"\xff\xc1\xeb\xfa", slow + SKIP, timeout=0.4)  # inc ecx; jmp back
    assert done.recorded > 1
    assert (done.ending, done.unreturned, done.findings, done.exit_code) == (Ending.TIMEOUT, (), (), 124)
    assert done.crash is not None


def test_an_endless_handler():
    done = ran(UD2, b"\xeb\xfe", timeout=0.5)
    assert (done.ending, vectors(done), done.exit_code) == (Ending.TIMEOUT, [Vector.UD], 124)
    assert done.crash is not None
    assert done.crash.address == CODE + UD_AT
    assert not done.crash.halted


def test_an_exception_that_comes_back_for_ever_is_a_storm():
    done = ran(UD2, b"\x48\xcf", timeout=0.5)
    (finding,) = done.findings
    assert finding.startswith("#UD at 0008:100008 is raised again and again: the last 64 times with the same registers")
    assert finding.endswith("and at the end nothing has changed: ud2 always raises #UD.")
    assert done.to_json()["findings"] == [finding]
    assert sum("at least x64" in line for line in report(done)) == 1


def test_a_delivery_that_fails_again_and_again_is_a_storm():
    done = ran(b"\xcc", HALT, gp=b"\x48\x83\xc4\x08\x48\xcf", timeout=3)  # int3; add rsp, 8; iretq
    (finding,) = done.findings
    assert re.match(r"#GP at 0008:100008 is raised again and again: the last \d+ times", finding)
    assert finding.endswith("IDT entry 3 (#BP) is empty (all zero), not an interrupt or trap gate.")


def test_a_loop_of_exceptions_is_not_a_storm():
    done = ran(UD2 + b"\xff\xc1\x75\xfa", SKIP, timeout=0.5)  # inc ecx; jnz back: the registers change
    assert done.recorded > 64
    assert done.findings == ()


@pytest.mark.parametrize(
    ("leave", "ending", "code"),
    [
        (b"\xb0\x03\xe6\xf4" + HALT, Ending.DEBUG_EXIT, 4),
        (b"\xb0\xfe\xe6\x64" + HALT, Ending.RESET, 5),
    ],
    ids=["debug exit", "reset"],
)
def test_a_machine_that_is_left_in_a_handler(leave, ending, code):
    done = ran(UD2, leave)
    assert (done.ending, vectors(done), done.exit_code) == (ending, [Vector.UD], code)
    assert done.crash is not None
    assert done.crash.registers.rax & 0xFF == leave[1]


def test_a_debug_exit_with_0_is_a_success_wherever_it_is():
    done = ran(UD2, b"\xb0\x00\xe6\xf4" + HALT)
    assert (done.ending, vectors(done), done.crash, done.exit_code) == (Ending.DEBUG_EXIT, [], None, 0)


def test_an_interrupt_at_an_exception_vector():
    done = ran(b"\xfb\xeb\xfe", HALT, b"\xb0\x20\xe6\x20" + HALT, timeout=60)  # sti; jmp. EOI; cli; hlt
    assert (done.ending, done.recorded) == (Ending.HALTED, 0)
    (finding,) = done.findings
    assert finding.startswith("IRQ 0 arrives at vector 8, that of #DF: it is an interrupt and not an exception.")


def test_the_file_has_the_evidence(tmp_path, capsys):
    from trapline.cli.main import main

    file = tmp_path / "run.jsonl"
    ran(UD2, BAD_LOAD, output=file)
    assert [line["seq"] for line in map(json.loads, file.read_text().splitlines()) if "unreturned" in line] == [1, 0]
    assert main(["explain", str(file)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "record 1, which the guest never came back from" in told
    assert "mov uses the selector 0xfff8" in told
    assert main(["explain", str(file), "--json"]) == 0
    assert [each["seq"] for each in json.loads(capsys.readouterr().out)] == [1, 0]


BOOT_SECTOR = bytes.fromhex("fa 31c0 8ed8 c70618001f7c c7061a000000 b800b8 8ec0 26c706d0074807 0f0b fa f4 ebfc").ljust(
    510, b"\0"
)
"""Set the vector of #UD in real mode to 7C1F; write an H in the middle of the screen; UD2."""


@pytest.mark.parametrize("processor", ["unicorn", "qemu"])
def test_a_boot_sector_on_each_processor(processor, tmp_path):
    image = tmp_path / "boot.img"
    image.write_bytes(BOOT_SECTOR + b"\x55\xaa")
    done = run(image, processor=processor, timeout=60)
    assert (done.ending, vectors(done), done.exit_code) == (Ending.HALTED, [Vector.UD], 5)
    assert done.crash is not None
    assert done.crash.halted
    assert [line.strip() for line in done.screen][-1] == "H"
    assert any(line.endswith("H") for line in screen(done, wanted=False))  # nothing was written to the console


def overwrites_its_instruction(count):
    """Return a boot sector that raises #UD `count` times; the last time its handler writes NOPs over UD2, and halts."""
    main = bytes.fromhex("fa 31c0 8ed8 c7061800207c c7061a000000 b9") + struct.pack("<H", count)
    loop = bytes.fromhex("0f0b 49 75fb")  # ud2; dec cx; jnz
    handler = bytes.fromhex("83f901 7406 5b 83c302 53 cf c706") + struct.pack("<HH", 0x7C00 + len(main), 0x9090) + HALT
    return ((main + loop).ljust(0x20, b"\x90") + handler).ljust(510, b"\0") + b"\x55\xaa"


RESETS = bytes.fromhex("fa 31c0 8ed8 c7061800137c c7061a000000 0f0b baf90c b006 ee fa f4 ebfc").ljust(510, b"\0")
"""Set the vector of #UD to 7C13, and UD2; there write 6 to port 0xCF9, the reset register."""


def test_a_reset_in_a_handler_on_qemu(tmp_path):
    image = tmp_path / "boot.img"
    image.write_bytes(RESETS + b"\x55\xaa")
    done = run(image, processor="qemu", timeout=60)
    assert (done.ending, vectors(done), done.exit_code) == (Ending.RESET, [Vector.UD], 5)
    assert in_handler(done) == "the guest reset the machine in its handler of #UD"
    assert done.crash.registers.rip == 0x7C18


@pytest.mark.parametrize("processor", ["unicorn", "qemu"])
@pytest.mark.parametrize(("count", "reason"), [(KEPT, "ud2 always raises #UD"), (KEPT + 1, None)])
def test_the_state_of_a_late_exception_is_read_at_the_end_and_said_to_be(count, reason, processor, tmp_path, capsys):
    from trapline.cli.main import main

    image, file, late = tmp_path / "boot.img", tmp_path / "run.jsonl", reason is None
    image.write_bytes(overwrites_its_instruction(count))
    done = run(image, processor=processor, output=file, timeout=60)
    (found,) = done.unreturned
    assert (found.record.seq, found.explanation.origin.reason) == (count - 1, reason)
    assert done.to_json()["unreturned"][0]["explanation"]["at_end"] == late
    assert (AT_END in " ".join("\n".join(report(done)).split())) == late
    assert main(["explain", str(file)]) == 0
    assert (AT_END in " ".join(capsys.readouterr().out.split())) == late
    assert main(["explain", str(file), "--json"]) == 0
    assert [each["at_end"] for each in json.loads(capsys.readouterr().out)] == [late]


@pytest.mark.parametrize(
    ("handlers", "turns", "cause"),
    [
        ((UD2 + HALT,), "x60", "the handler of #UD raises #UD itself, at 0x100100,"),
        ((BAD_LOAD, BAD_LOAD), "x60", "the handler of #GP raises #GP itself, at 0x100184,"),
        ((BAD_LOAD, UD2 + HALT), "x30 in turn", "inside the handlers of others, at 0x100180 and 0x100104,"),
    ],
    ids=["one", "another", "two in turn"],
)
def test_the_first_of_a_recursion_is_kept(handlers, turns, cause):
    done = ran(UD2, *handlers)
    assert (done.ending, done.recorded) == (Ending.SHUTDOWN, 431)
    assert cause in done.explanation.cause
    (found,) = done.unreturned
    assert (found.record.seq, found.record.vector, found.record.rip) == (0, Vector.UD, CODE + 8)
    assert found.explanation.origin.reason == "ud2 always raises #UD"
    lines = last_exceptions(done)
    assert lines[0].endswith("0008:0000000000100008  the first that it never came back from")
    assert lines[1].endswith(f"  at least {turns}")
    assert "the guest was in its handler of #UD, the first exception that it never came back from" in report(done)


def test_an_exception_of_a_handlers_own_instruction():
    done = ran(UD2, BAD_LOAD + HALT)
    assert vectors(done) == [Vector.GP, Vector.UD]


TIMER = bytes.fromhex("b036 e643 b010 e640 b000 e640 b0fe e621 b9a0860100 e2fe")
"""Start the timer, let its interrupt through, and go round a loop for longer than it takes."""


@pytest.mark.parametrize(
    ("code", "findings"),
    [
        (b"\xfa" + TIMER + b"\xf4\xeb\xfd", 1),  # cli; ...; hlt, again and again
        (TIMER + HALT, 0),
        (TIMER + b"\xb0\xff\xe6\x21\xe6\xa1\xfb\xf4\xeb\xfd", 1),  # all masked; sti; hlt
    ],
    ids=["interrupts off", "its end", "masked"],
)
def test_interrupts_that_cannot_end_a_halt(code, findings):
    done = ran(code, HALT)
    assert (done.ending, done.exit_code, len(done.findings)) == (Ending.HALTED, 0, findings)
    assert all(finding.startswith("IRQ 0 is pending, but ") for finding in done.findings)


def test_where_a_guest_strayed_to():
    done = ran(b"\xb8\x00\x00\x80\x00\xff\xe0", HALT, timeout=1)  # mov eax, 8 MiB; jmp rax: there are zeros
    (finding,) = done.findings
    assert finding.startswith("The code at RIP is zeros, ")


@pytest.mark.parametrize(
    ("broken", "handler", "code", "sentence"),
    [
        ("explain.explain.reason", HALT, 5, "the guest halted in its handler of #UD"),
        ("explain.explain.reason", b"\x0f\x0b", 3, "the guest was in its handler of #UD"),
        ("explain.unreturned.handler_code", HALT, 0, "halted, and nothing can wake it"),
        ("explain.chips._at_exceptions", HALT, 5, "the guest halted in its handler of #UD"),
        ("session.explaining.refused_state", HALT, 5, "the guest halted in its handler of #UD"),
    ],
)
def test_an_error_in_an_explanation_costs_that_explanation_alone(
    tmp_path, capsys, monkeypatch, broken, handler, code, sentence
):
    def fails(*arguments, **options):
        raise IndexError("list index out of range")

    path = tmp_path / "guest.bin"
    path.write_bytes(guest(UD2, handler))
    monkeypatch.setattr(f"trapline.{broken}", fails)
    options = ["--entry-mode", "64", "--load-address", hex(CODE), "--timeout", "60", "--processor", "unicorn"]
    assert main(["run", str(path), *options]) == code
    told = " ".join(capsys.readouterr().err.split())
    assert sentence in told
    assert "This could not be explained: an error in trapline: IndexError: list index out of range (test" in told
    assert told.count("an error in trapline") == 1
    assert "Traceback" not in told
    assert " recorded; " in told
