"""Machines that are held, cancelled and closed."""

from types import SimpleNamespace

import anyio
import pytest

from trapline import Machine, ProcessorLost, StopReason, UsageError
from trapline.debugger.mcp import stopping
from trapline.debugger.mcp.threads import Work
from trapline.debugger.target import Target

LOOP = bytes.fromhex("ebfe")
"""`jmp $`, in real mode."""
RAW = {"entry_mode": 16}


def test_a_guest_is_held_at_an_exception_and_goes_on(talk):
    async def conversation(session):
        held = await session.call("stop_at", guest="sample:ring3", at="pf if cpl == 3")
        assert (held["reason"], held["exception"]["name"], held["exception"]["address"]) == (
            "exception",
            "#PF",
            "0x101000",
        )
        assert held["why"]["cause"]
        wide = (await session.call("registers", fpu=True))["registers"]
        registers = (await session.call("registers"))["registers"]
        assert {"st0", "ftw", "mm7", "xmm15", "mxcsr"} <= wide.keys() - registers.keys()
        assert registers["rip"] == held["exception"]["rip"]
        code = await session.call("disassemble", count=2)
        assert code["lines"][0].startswith("> ")
        stack = await session.call("memory", address="rsp", size=64)
        assert stack["address"] == registers["rsp"]
        assert (await session.call("explain", trace="r1"))["explanations"][0]["cause"] == held["why"]["cause"]
        stepped = await session.call("step", count=2)
        assert (stepped["reason"], len(stepped["executed"])) == ("step", 2)
        assert held["console"]
        assert stepped["console"] == ""  # each line is told once
        ended = await session.call("resume", machine="r1")
        assert (ended["reason"], ended["held"]) == ("off", False)
        assert (await session.call("exceptions", trace="r1", where="cpl == 3"))["total"] == 2
        assert "stop_at starts one" in await session.error("registers")

    talk(conversation)


def test_an_exception_is_discarded_or_replaced(talk):
    async def conversation(session):
        await session.call("stop_at", guest="sample:ud", at="ud")
        assert "vector" in await session.error("resume", verdict="inject")
        assert "not for forward" in await session.error("resume", vector="gp")
        injected = await session.call("stop_at", machine="r1", at="gp")
        assert injected["reason"] == "off"
        await session.call("stop_at", guest="sample:ud", at="ud")
        ended = await session.call("resume", verdict="discard", skip=True)
        assert ended["reason"] == "off"
        total = (await session.call("exceptions", trace="r2"))["exceptions"]
        assert [each["outcome"] for each in total] == ["discarded"]

    talk(conversation)


def test_a_triple_fault_is_held_in_the_state_before_the_reset(talk):
    async def conversation(session):
        held = await session.call("stop_at", guest="sample:stack-overflow")
        assert (held["reason"], held["held"]) == ("shutdown", True)
        assert "the kernel stack overflowed" in held["why"]["cause"]
        assert "cannot run any more" in await session.error("resume")
        assert (await session.call("registers"))["registers"]["rsp"] == "0x111000"
        assert "page_walk shows why" in await session.error("memory", address="0x110ff0")
        below = await session.call("memory", address="0x10fff0", size=64)
        assert (below["size"], len(below["lines"])) == (16, 1)
        assert "0x110000" in below["note"]
        walk = await session.call("page_walk", address="rsp+8")
        assert (walk["physical"], [each["name"] for each in walk["steps"]]) == (
            "0x111008",
            ["PML4E", "PDPE", "PDE", "PTE"],
        )
        denied = await session.call("page_walk", address="0x110ff8")
        assert (denied.get("physical"), denied["steps"][-1]["denies"]) == (None, True)
        assert "not mapped" in denied["denied"]
        tables = {each["name"]: each for each in (await session.call("tables"))["tables"]}
        assert tables.keys() == {"IDT", "GDT", "TSS"}
        whole, cursor = [], None
        while cursor is not None or not whole:
            answer = await session.call("tables", table="idt", limit=10, cursor=cursor)
            whole += answer["tables"][0]["entries"]
            cursor = answer.get("next_cursor")
        assert [each["label"] for each in whole[:2]] == ["0 #DE", "1 #DB"]
        assert len(whole) + answer["tables"][0]["empty"] == 32

    talk(conversation)


def test_a_guest_that_spins_blocks_nothing(talk, tmp_path):
    (tmp_path / "guest").write_bytes(LOOP)

    async def conversation(session):
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(
                    session.client.call_tool, "stop_at", {"guest": "guest", "options": RAW, "timeout": 600}
                )
                held = await session.call("stop_at", guest="guest", options=RAW, timeout=0.2)
                assert (held["reason"], held["where"]["rip"]) == ("timeout", "0x7c00")
                group.cancel_scope.cancel()
            async with anyio.create_task_group() as group:
                group.start_soon(session.client.call_tool, "resume", {"timeout": 600})
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            assert (await session.call("resume", timeout=0.2))["reason"] in ("timeout", "interrupted")

    talk(conversation)


def test_a_request_that_is_cancelled_as_the_guest_stops_does_not_stop_the_next_run():
    with Machine(bytes.fromhex("90 f4"), **RAW) as machine:

        class Late(Work):
            def interrupted_by(self, interrupt):
                if interrupt is None:
                    self.cancel()
                super().interrupted_by(interrupt)

        held = SimpleNamespace(machine=machine, target=Target(machine))
        assert stopping._running(Late(), held, held.target.step).reason is StopReason.STEP
        assert held.target.resume().reason is StopReason.HALTED


def test_a_machine_that_cannot_be_told_of_is_not_held(talk, monkeypatch):
    def lost(*_):
        raise ProcessorLost("gone")

    async def conversation(session):
        monkeypatch.setattr(stopping, "_where", lost)
        assert "gone" in await session.error("stop_at", guest="sample:ud", at="ud")
        assert "no machine is held" in await session.error("registers")

    talk(conversation)


def test_all_machines_are_closed_though_one_cannot_be(talk, monkeypatch):
    """As where its trace does not fit on the disk."""
    closed = []

    def close(machine):
        closed.append(machine)
        machine.session.close()
        if len(closed) == 1:
            raise UsageError("the disk is full")

    async def conversation(session):
        for _ in range(3):
            await session.call("stop_at", guest="sample:ud", at="ud")
        monkeypatch.setattr(Machine, "close", close)

    with pytest.raises(BaseException):  # noqa: B017, PT011  # a group with it, by the SDK's own tasks
        talk(conversation)
    assert len(set(closed)) == 3


def test_the_oldest_of_too_many_machines_is_closed(talk, tmp_path):
    (tmp_path / "guest").write_bytes(LOOP)

    async def conversation(session):
        notes = []
        for _ in range(5):
            held = await session.call("stop_at", guest="guest", options=RAW, timeout=0.05)
            notes.append(held.get("note"))
        assert notes[:4] == [None] * 4
        assert notes[4].startswith("r1, the oldest machine, was closed")
        assert "held are: r2, r3, r4, r5" in await session.error("registers", machine="r1")

    talk(conversation)
