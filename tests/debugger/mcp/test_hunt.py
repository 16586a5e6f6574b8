"""An agent that does what the answers say finds what was planted, in three calls at most."""

import re

import pytest

from tests.explain.broken import ALL
from tests.explain.kinds import MODES

STORM = bytes.fromhex("31c0 8ed8 c7061800127c c7061a000000 0f0b cf")
"""`xor ax, ax; mov ds, ax; mov word [0x18], 0x7c12; mov word [0x1a], 0; ud2; iret`: the handler comes back to UD2."""
PLANTED = [
    each
    for each in ALL
    if each.name in ("short IDT", "handler not mapped", "RSP0 zero", "SSE disabled", "GDT not mapped")
]
CALLS = 3


async def hunt(session, guest, found, **how):
    """Run a guest, then make the calls that the answers name, until one says what is wrong."""
    answer = await session.call("run", guest=guest, **how)
    while not found(answer):
        assert session.calls < CALLS, answer
        step = answer["next"][0]
        answer = await session.call(step["tool"], **step["arguments"])
    return answer


@pytest.mark.parametrize("broken", PLANTED, ids=lambda each: each.name)
def test_a_triple_fault_is_found(talk, tmp_path, broken):
    image = broken.image()
    (tmp_path / "guest").write_bytes(image.ljust(1 << 20, b"\0") if broken in MODES else image)

    async def conversation(session):
        answer = await hunt(
            session, "guest", lambda answer: any(re.search(broken.expected, each["cause"]) for each in answer["why"])
        )
        assert (answer["ending"], answer["exit_code"]) == ("shutdown", 3)
        assert answer["why"][0]["proven"]

    assert len(PLANTED) == 5
    talk(conversation)


def test_a_storm_is_found(talk, tmp_path):
    (tmp_path / "guest").write_bytes(STORM)

    async def conversation(session):
        answer = await hunt(
            session,
            "guest",
            lambda answer: any("raised again and again" in each for each in answer["findings"]),
            options={"entry_mode": 16},
            timeout=0.5,
        )
        assert answer["ending"] == "timeout"
        assert "ud2 always raises #UD" in answer["cause"]
        step = next(each for each in answer["next"] if each["tool"] == "exceptions")
        groups = (await session.call("exceptions", **step["arguments"]))["groups"]
        assert groups[0]["keys"] == {"vector": 6, "symbol": None, "linear_rip": "0x7c10"}
        assert groups[0]["count"] == answer["recorded"]

    talk(conversation)


def test_a_panic_is_found(talk):
    async def conversation(session):
        answer = await hunt(session, "sample:panic", lambda answer: "0x80000000" in answer["cause"])
        assert "KERNEL PANIC" in answer["console"]
        assert answer["ending"] == "debug_exit"
        assert answer["exit_code"] == 4
        step = answer["next"][0]
        held = await session.call(step["tool"], **step["arguments"])
        assert (held["reason"], held["exception"]["address"]) == ("exception", "0x80000000")

    talk(conversation)
