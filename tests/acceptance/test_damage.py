"""A guest that writes over trapline's monitor ends its own run, in time and with a true sentence."""

import pytest

from tests.acceptance.runs import command, read_lines
from trapline.arch.layout import offset_of
from trapline.processors.qemu.layout import CODE_AT, MAILBOX_AT, PML4_AT, VMCB_AT, Mailbox, base_for

BASE = base_for(40)
MONITOR_Q35 = 0xB000_0000 + (0x1E << 15 | 7 << 12)
"""The configuration space of the monitor's PCI device in a q35's MMCONFIG."""
Q35 = ("-machine", "q35")
LIMIT = "3"


def mailbox(name):
    return BASE + MAILBOX_AT + offset_of(Mailbox, name)


@pytest.mark.parametrize(
    ("place", "value", "count", "what"),
    [
        (mailbox("ring_head") + 4, 0x7FFF_FFFF, 1, "the head of its ring was written over"),
        (mailbox("ring_tail"), 99, 1, "the tail of its ring was written over"),
        (mailbox("reset"), 1, 1, "it reports a reset that was none"),
        (BASE + CODE_AT, 0xFEEB_FEEB, 0x800, "its code was written over"),
        (BASE + PML4_AT, 0, 0x800, "its page tables were written over"),
        (BASE + VMCB_AT, 0, 0x100, "its VMCB was written over"),
    ],
)
def test_a_guest_that_damages_the_monitor(start, image, tmp_path, place, value, count, what):
    guest, output = image("poke", PLACE=place, VALUE=value, COUNT=count), tmp_path / "records.jsonl"
    run = start(command(guest, "all", "--timeout", LIMIT, "-o", str(output)))
    assert run.wait() == 1
    assert run.complaints() == [f"trapline: the guest damaged trapline's monitor ({what}); use --isolate"]
    assert "guest: failed after" in run.words
    assert "Traceback" not in run.words
    assert len(read_lines(output)) > 0  # those before it
    run.assert_nothing_is_left()


@pytest.mark.parametrize(("register", "value"), [(0x04, 0), (0x18, 0xC000_0000)], ids=["command", "BAR"])
def test_a_guest_that_takes_the_monitors_device_away(start, image, register, value):
    guest = image("poke", PLACE=MONITOR_Q35 + register, VALUE=value)
    run = start(command(guest, "all", "--timeout", LIMIT, machine=Q35))
    assert run.wait() == 1
    (complaint,) = run.complaints()
    assert complaint.endswith("monitor (it crashed); use --isolate, which needs a pc machine")


@pytest.mark.parametrize("place", [mailbox("ring_head"), BASE + CODE_AT])
def test_a_guest_that_cannot_reach_the_monitor(start, image, place):
    run = start(command(image("poke", PLACE=place, VALUE=0xFEEB_FEEB), "all", "--isolate"))
    assert run.wait() == 0
    assert "guest: debug exit with 0x0" in run.words
    assert run.complaints() == []
