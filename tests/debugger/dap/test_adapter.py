"""Requests and what they lead to, with guests on Unicorn; each message is checked against the protocol's schema."""

import base64

import pytest

from tests.debugger.dap.session import Session
from tests.programs.kernel import build_kernel
from trapline.arch.vectors import FORCEABLE
from trapline.debugger.dap.messages import read_request
from trapline.errors import TraplineError, UsageError
from trapline.symbols import Symbols
from trapline.symbols.ranges import Function, Ranges

LOOP = bytes.fromhex("b90300 e80400 e2fb 0f0b 40 c3 f4")
"""`mov cx, 3; again: call add; loop again; ud2; add: inc ax; ret; hlt`, in real mode."""
CALL, LOOPS, UD2, ADD, HLT = 0x7C03, 0x7C06, 0x7C08, 0x7C0A, 0x7C0C
STORE = bytes.fromhex("c606007e2a 90 f4")
"""`mov byte [0x7e00], 42; nop; hlt`."""


@pytest.fixture
def session():
    with Session() as session:
        yield session


@pytest.fixture
def code(tmp_path):
    """Return a function that writes code for real mode to a file, and returns the arguments of its launch."""

    def code(data, **arguments):
        path = tmp_path / "code.bin"
        path.write_bytes(data)
        return {"guest": path, "entryMode": 16, **arguments}

    return code


def at(session):
    return int(session.get("stackTrace", threadId=1)["stackFrames"][0]["instructionPointerReference"], 16)


def test_there_is_a_filter_for_each_vector_that_can_be_forced(session):
    capabilities = session.get("initialize", adapterID="trapline")
    filters = {each["filter"]: each for each in capabilities["exceptionBreakpointFilters"]}
    assert len(filters) == FORCEABLE.bit_count() + 1
    assert [name for name, each in filters.items() if each.get("default")] == ["shutdown", "df"]
    assert filters["pf"]["label"] == "#PF page fault"
    assert filters["pf"]["supportsCondition"]


def test_it_stops_at_an_exception_and_explains_it(session):
    session.launch("sample:pf", filters=["pf"])
    assert session.stop["reason"] == "entry"
    stop = session.run()
    assert (stop["reason"], stop["description"]) == ("exception", "Paused on #PF page fault")
    info = session.get("exceptionInfo", threadId=1)
    assert info["exceptionId"] == "#PF page fault"
    assert "read of 0x80000123 (not mapped: PDPE is 0x0)" in info["description"]
    assert session.scope("Exception")["fault_address"]["value"] == "0x80000123"
    assert session.scope("General")["rax"]["value"] == "0x80000123"
    walk = session.scope("Page walk of the fault address")
    assert walk["denied"]["value"] == "not mapped: PDPE is 0x0"
    assert session.scope("Page walk of RIP")["permits"]["value"] == "read, write, execute"
    assert "interrupt gate" in session.scope("IDT")["14 #PF"]["value"]
    assert session.scope("GDT")["0x8"]["value"] == "64-bit code of DPL 0"
    assert "RSP0" in session.scope("TSS")
    session.run("stepIn")  # delivers it: the guest is at the handler
    assert session.scope("Control")["cr2"]["value"] == "0x80000123"
    assert "is not stopped at an exception" in session.refused("exceptionInfo", threadId=1)


def test_each_cpu_is_a_thread(session):
    session.launch("sample:ap-no-nxe", filters=["pf"])
    assert session.run()["threadId"] == 2
    assert session.get("threads")["threads"] == [{"id": 1, "name": "CPU 0"}, {"id": 2, "name": "CPU 1"}]
    frames = [session.get("stackTrace", threadId=thread)["stackFrames"][0] for thread in (1, 2)]
    rips = [int(frame["instructionPointerReference"], 16) for frame in frames]
    for first, second in ((0, 1), (1, 0)):  # whichever was looked at last
        session.get("scopes", frameId=frames[second]["id"])
        there = {"frameId": frames[first]["id"]}
        assert int(session.get("evaluate", expression="rip", **there)["result"].split()[0], 16) == rips[first]
        session.get("setExpression", expression="r15", value=f"{first + 7}", **there)
        session.get("scopes", frameId=frames[second]["id"])
        place = session.get("dataBreakpointInfo", name="byte [r15]", **there)["dataId"]
        assert place == f"{first + 7:#x}/1"
    general = [session.get("scopes", frameId=frame["id"])["scopes"][0]["variablesReference"] for frame in frames]
    for reference, rip in zip(general, rips, strict=True):
        found = {
            each["name"]: each["value"] for each in session.get("variables", variablesReference=reference)["variables"]
        }
        assert int(found["rip"].split()[0], 16) == rip
    assert session.run("stepIn", granularity="instruction")["threadId"] == 1
    assert "no CPU 8" in session.refused("stackTrace", threadId=9)


def test_a_condition_decides_about_an_exception(session):
    session.launch("sample:pf")
    body = session.get(
        "setExceptionBreakpoints",
        filters=[],
        filterOptions=[
            {"filterId": "pf", "condition": "error_code & 2"},
            {"filterId": "pf", "condition": "colour"},
            {"filterId": "nothing"},
            {"filterId": "shutdown", "condition": "cpl == 0"},
        ],
    )
    assert [each["verified"] for each in body["breakpoints"]] == [True, False, False, False]
    assert "colour" in body["breakpoints"][1]["message"]
    session.run()
    assert session.scope("Exception")["error_code"]["value"] == "0x2"


def test_a_shutdown_stops_before_the_reset_and_then_the_guest_is_over(session):
    session.launch("sample:no-idt", filters=["shutdown"])
    stop = session.run()
    assert (stop["reason"], stop["description"]) == ("exception", "Paused on shutdown (triple fault)")
    info = session.get("exceptionInfo", threadId=1)
    assert info["exceptionId"] == "shutdown (triple fault)"
    assert "IDTR" in info["description"]
    assert session.value("rip").startswith("0x")
    session.get("continue", threadId=1)
    assert session.events("exited") == [{"exitCode": 3}]
    assert session.events("terminated") == [None]
    assert "there is no guest" in session.refused("stackTrace", threadId=1)


def test_without_its_filter_a_shutdown_is_just_the_end(session):
    session.launch("sample:no-idt")
    session.get("continue", threadId=1)
    assert session.events("exited") == [{"exitCode": 3}]
    assert "triple fault" in session.events("output")[-2]["output"]


def test_the_console_is_the_output_and_the_exit_code_is_that_of_run(session):
    session.get("initialize", adapterID="trapline")
    session.get("launch", guest="sample:de", noDebug=True)
    session.get("configurationDone")
    text = "".join(each["output"] for each in session.events("output") if each["category"] == "stdout")
    assert "#DE" in text
    assert session.events("exited") == [{"exitCode": 0}]


def test_without_a_debugger_a_halt_is_the_end(session, code):
    session.get("initialize", adapterID="trapline")
    session.get("launch", **{**(guest := code(STORE)), "guest": str(guest["guest"]), "noDebug": True})
    session.get("setExceptionBreakpoints", filters=["ud"])
    session.get("setInstructionBreakpoints", breakpoints=[{"instructionReference": "0x7c05"}])
    session.get("configurationDone")
    assert session.events("stopped") == []
    assert session.events("terminated") == [None]


def test_an_exception_is_discarded_or_another_one_injected(session, code):
    session.launch(**code(LOOP), filters=["ud", "gp"])
    session.run()
    assert at(session) == UD2
    assert "#UD is discarded" in session.get("evaluate", expression="discard skip", context="repl")["result"]
    assert session.run("next", granularity="instruction")["reason"] == "step"
    assert session.value("ax") == "4"
    session.get("restart")
    assert session.stop["reason"] == "entry"
    session.run()
    assert "there is no such vector" in session.refused("evaluate", expression="inject colour", context="repl")
    assert "pushes none" in session.refused("evaluate", expression="inject de 1", context="repl")
    told = session.get("evaluate", expression="inject de", context="repl")["result"]
    assert told == "#DE is delivered when the guest goes on, in place of #UD"
    session.get("writeMemory", memoryReference="0x0", data=base64.b64encode(bytes.fromhex("0c7c0000")).decode())
    session.run("stepIn")
    assert at(session) == HLT
    assert "nothing to decide" in session.refused("evaluate", expression="discard", context="repl")
    assert "#UD" in session.get("evaluate", expression="last 1", context="repl")["result"]
    session.get("restart")
    session.run()
    session.get("evaluate", expression="discard", context="repl")
    session.run()
    assert at(session) == UD2  # it is raised again, and the decision was about the first one alone
    session.run("stepIn")
    assert at(session) != UD2


def test_steps_go_over_into_and_out_of_a_call(session, code):
    session.launch(**code(LOOP))
    session.run("next", granularity="instruction")
    assert at(session) == CALL
    session.run("next", granularity="instruction")
    assert at(session) == LOOPS
    session.run("stepIn", granularity="instruction")
    session.run("stepIn", granularity="instruction")
    assert at(session) == ADD
    assert "the caller is not known" in session.refused("stepOut", threadId=1)


def test_breakpoints_on_instructions_have_conditions_counts_and_messages(session, code):
    session.launch(**code(LOOP))

    def stops(**conditions):
        session.get("restart")
        told = len(session.events("output"))
        body = session.get("setInstructionBreakpoints", breakpoints=[{"instructionReference": hex(ADD), **conditions}])
        assert body["breakpoints"][0]["verified"], body
        session.get("setExceptionBreakpoints", filters=["ud"])
        found = []
        while session.run()["reason"] != "exception":
            assert session.stop["hitBreakpointIds"] == [body["breakpoints"][0]["id"]]
            found.append(session.value("ax"))
        return found, [each["output"] for each in session.events("output")[told:]]

    assert stops() == (["0", "1", "2"], [])
    assert stops(condition="ax == 1 and word [0x7c0a] == 0xc340") == (["1"], [])
    assert stops(hitCondition=">= 2") == (["1", "2"], [])
    assert stops(hitCondition="% 2") == (["1"], [])
    found, told = stops(condition="colour")
    assert len(found) == len(told) == 3
    assert told[0] == "the condition of a breakpoint: colour: neither a register nor a symbol\n"
    wrong = [{"instructionReference": hex(ADD), "hitCondition": "often"}, {"instructionReference": "colour"}]
    body = session.get("setInstructionBreakpoints", breakpoints=wrong)
    assert [each["verified"] for each in body["breakpoints"]] == [False, False]
    assert body["breakpoints"][0]["message"] == "'often': a number of hits is 5, >= 5 or % 5"


def test_a_step_over_a_call_ends_there_unless_a_condition_holds_inside(session, code):
    session.launch(**code(LOOP))
    session.run("next", granularity="instruction")
    asked = {"instructionReference": hex(ADD)}
    session.get("setInstructionBreakpoints", breakpoints=[{**asked, "condition": "ax == 1"}])
    assert session.run("next", granularity="instruction")["reason"] == "step"
    assert at(session) == LOOPS
    session.run("next", granularity="instruction")
    assert at(session) == CALL
    assert session.run("next", granularity="instruction")["reason"] == "instruction breakpoint"
    assert at(session) == ADD
    after = {"instructionReference": hex(LOOPS), "condition": "ax == 9"}
    session.get("setInstructionBreakpoints", breakpoints=[after])
    session.get("restart")
    session.run("next", granularity="instruction")
    assert session.run("next", granularity="instruction")["reason"] == "step"
    assert at(session) == LOOPS


def test_memory_is_watched(session, code):
    session.launch(**code(STORE))
    info = session.get("dataBreakpointInfo", name="byte [0x7e00]")
    assert (info["dataId"], info["accessTypes"]) == ("0x7e00/1", ["write", "readWrite"])
    assert session.get("dataBreakpointInfo", name="rax")["dataId"] is None
    assert session.get("dataBreakpointInfo", name="0x7e00", asAddress=True, bytes=4)["dataId"] == "0x7e00/4"
    asked = [{"dataId": info["dataId"]}, {"dataId": "colour"}, {"dataId": "0x0/4", "accessType": "read"}]
    body = session.get("setDataBreakpoints", breakpoints=asked)
    assert [each["verified"] for each in body["breakpoints"]] == [True, False, False]
    stop = session.run()
    assert (stop["reason"], stop["hitBreakpointIds"]) == ("data breakpoint", [body["breakpoints"][0]["id"]])
    assert session.value("byte [0x7e00]") == "0x2a"
    session.get("setDataBreakpoints", breakpoints=[])
    assert session.run()["reason"] == "halted"
    session.get("continue", threadId=1)
    assert session.events("terminated") == [None]


def test_values_are_set(session, code):
    session.launch(**code(LOOP))
    scopes = session.get("scopes", frameId=1)["scopes"]
    general = scopes[0]["variablesReference"]
    assert session.get("setVariable", variablesReference=general, name="rbx", value="2 + 3")["value"] == "0x5"
    assert session.get("setExpression", expression="bl", value="0xff")["value"] == "0xff (255)"
    assert session.get("evaluate", expression="word [0x7c00] = 0x1234", context="repl")["result"] == "0x1234"
    assert session.get("evaluate", expression="rax = 9", context="repl")["result"] == "9"
    assert session.value("ebx + rax") == "0x108 (264)"
    assert session.events("invalidated") != []
    assert "does not fit" in session.refused("setExpression", expression="bl", value="0x100")
    assert "can be set" in session.refused("setExpression", expression="1 + 1", value="2")
    wide = f"{1 << 127:#x}"
    assert session.get("setExpression", expression="xmm9", value=wide)["value"] == f"{wide} ({1 << 127})"
    assert session.value("xmm9 == 1 << 63 or mm0 + st0") == "0"
    segments = scopes[1]["variablesReference"]
    assert "there is no such variable" in session.refused(
        "setVariable", variablesReference=segments, name="colour", value="1"
    )
    session.run("next")
    assert "the guest has run since" in session.refused("variables", variablesReference=general)


def test_memory_is_read_and_written(session, code):
    session.launch(**code(LOOP))
    read = session.get("readMemory", memoryReference=hex(UD2), count=2)
    assert base64.b64decode(read["data"]) == LOOP[8:10]
    text = base64.b64encode(b"\x90\x90").decode()
    assert session.get("writeMemory", memoryReference="phys:0x7c08", data=text) == {"bytesWritten": 2}
    assert base64.b64decode(session.get("readMemory", memoryReference="rip", offset=8, count=2)["data"]) == b"\x90\x90"
    beyond = session.get("readMemory", memoryReference="phys:0xfffffff0", offset=1 << 33, count=8)
    assert beyond == {"address": "phys:0x2fffffff0", "unreadableBytes": 8}
    assert "not base64" in session.refused("writeMemory", memoryReference="0", data="?")
    assert "cannot access" in session.refused("writeMemory", memoryReference="phys:0x2fffffff0", data=text)


@pytest.mark.parametrize(("offset", "count"), [(0, 3), (-2, 5), (-40, 60), (4, 2), (0, 0)])
def test_as_many_instructions_are_disassembled_as_were_asked_for(session, code, offset, count):
    session.launch(**code(LOOP))
    body = session.get(
        "disassemble", memoryReference=hex(LOOPS), instructionOffset=offset, instructionCount=count, resolveSymbols=True
    )
    found = body["instructions"]
    assert len(found) == count
    addresses = [int(each["address"], 16) for each in found]
    assert addresses == sorted(addresses)
    if offset <= 0 < count + offset:
        assert found[-offset]["instruction"] == "loop 0x7c03"


def test_code_that_is_not_mapped_is_said_to_be(session):
    session.launch("sample:pf", filters=["pf"])
    session.run()
    body = session.get("disassemble", memoryReference="0x80000123", instructionOffset=-1, instructionCount=3)
    assert [each["instruction"] for each in body["instructions"]] == ["(not mapped)"] * 3


def test_sources_and_lines(session, kernel):
    session.launch(kernel.image, symbols=[str(kernel.symbols)])
    source = {"path": "/another/machine/main.c"}
    lines = (build_kernel.HERE / "main.c").read_text().splitlines()
    wanted = next(number for number, line in enumerate(lines, 1) if "traps_start();" in line)
    asked = [{"line": wanted}, {"line": len(lines) + 9}]
    body = session.get("setBreakpoints", source=source, breakpoints=asked)["breakpoints"]
    assert [(each["verified"], each.get("line")) for each in body] == [(True, wanted), (False, None)]
    assert "its last line with code is" in body[1]["message"]
    refused = session.get("setBreakpoints", source={"path": "/x/nowhere.c"}, breakpoints=[{"line": 1}])
    assert "the symbols have no lines of it" in refused["breakpoints"][0]["message"]
    locations = session.get("breakpointLocations", source=source, line=1, endLine=len(lines))["breakpoints"]
    assert {"line": wanted} in locations
    stop = session.run()
    assert (stop["reason"], stop["hitBreakpointIds"]) == ("breakpoint", [body[0]["id"]])
    frame = session.get("stackTrace", threadId=1)["stackFrames"][0]
    assert (frame["name"], frame["line"]) == ("kernel_main", wanted)
    assert frame["source"]["path"] == str(build_kernel.HERE / "main.c")
    assert session.get("source", sourceReference=0, source=frame["source"])["content"] == "\n".join(lines) + "\n"
    session.run("next")
    assert session.get("stackTrace", threadId=1)["stackFrames"][0]["line"] == wanted + 1
    session.run("stepIn")
    inside = session.get("stackTrace", threadId=1)["stackFrames"][0]
    assert inside["source"]["name"] == "console.c"
    function = session.get("setFunctionBreakpoints", breakpoints=[{"name": "timer_start"}, {"name": "colour"}])
    assert [each["verified"] for each in function["breakpoints"]] == [True, False]
    assert session.run()["reason"] == "function breakpoint"
    code = session.get("disassemble", memoryReference="rip", instructionCount=2, instructionOffset=-1)["instructions"]
    assert code[1]["symbol"] == "timer_start"


def test_a_source_that_is_not_here_is_told(session, compiled):
    program = compiled("void f(void) { for (;;); }", "-g", "-Wl,-e,f")
    (program.parent / "source.c").unlink()
    session.launch(program)
    frame = session.get("stackTrace", threadId=1)["stackFrames"][0]
    assert "path" not in frame["source"]
    told = session.refused("source", sourceReference=frame["source"]["sourceReference"])
    assert "is not on this machine: name the directory that has it in sourceRoots" in told


def test_lines_are_counted_as_the_client_counts(session, kernel):
    session.get("initialize", adapterID="trapline", linesStartAt1=False)
    session.get("launch", guest=str(kernel.image), symbols=[str(kernel.symbols)], stopOnEntry=True)
    line = next(
        number
        for number, line in enumerate((build_kernel.HERE / "main.c").read_text().splitlines())
        if "memory_start();" in line
    )
    body = session.get("setBreakpoints", source={"path": "main.c"}, breakpoints=[{"line": line}])
    assert body["breakpoints"][0]["line"] == line
    session.get("configurationDone")
    session.run()
    assert session.get("stackTrace", threadId=1)["stackFrames"][0]["line"] == line


def test_breakpoints_that_come_before_the_guest_are_set_in_it(session, code):
    session.get("initialize", adapterID="trapline")
    asked = [{"instructionReference": hex(ADD)}]
    body = session.get("setInstructionBreakpoints", breakpoints=asked)["breakpoints"][0]
    assert not body["verified"]
    guest = code(LOOP)
    session.get("launch", **{**guest, "guest": str(guest["guest"])})
    assert session.events("breakpoint")[0]["breakpoint"]["verified"]
    session.get("configurationDone")
    assert session.stop["hitBreakpointIds"] == [body["id"]]


def test_a_breakpoint_that_the_processor_refuses_is_the_only_one(session, code, monkeypatch):
    session.launch(**code(LOOP))
    processor = session.adapter._state.guest.machine.session.processor
    take = processor.set_breakpoints

    def set_breakpoints(addresses):
        if 0x9000 in addresses:
            raise UsageError("0x9000 cannot be watched")
        take(addresses)

    monkeypatch.setattr(processor, "set_breakpoints", set_breakpoints)
    both = [{"instructionReference": "0x9000"}, {"instructionReference": f"{ADD:#x}"}]
    refused, taken = session.get("setInstructionBreakpoints", breakpoints=both)["breakpoints"]
    assert (refused["verified"], refused["message"], taken["verified"]) == (False, "0x9000 cannot be watched", True)
    session.get("setFunctionBreakpoints", breakpoints=[{"name": f"{HLT:#x}"}])
    session.run()
    assert at(session) == ADD
    session.get("setInstructionBreakpoints", breakpoints=[])
    session.run()
    assert at(session) == HLT


def test_breakpoints_are_set_when_symbols_are_placed(session, code):
    session.launch(**code(LOOP))
    body = session.get("setFunctionBreakpoints", breakpoints=[{"name": "add"}])["breakpoints"][0]
    assert not body["verified"]
    names = session.adapter._state.guest.machine.session.names
    names.files.append(Symbols("kernel", Ranges([Function(ADD, 2, "add", 0)])))
    session.run("next", granularity="instruction")
    changed = session.events("breakpoint")[-1]["breakpoint"]
    assert changed == {"id": body["id"], "verified": True, "instructionReference": hex(ADD)}
    assert session.run()["hitBreakpointIds"] == [body["id"]]
    assert session.get("stackTrace", threadId=1)["stackFrames"][0]["name"] == "add"


@pytest.mark.parametrize("command", ["continue", "disconnect", "terminate"])
def test_a_trace_that_does_not_fit_on_the_disk_is_told_and_the_session_goes_on(session, command, monkeypatch):
    session.launch("sample:ring3")
    machine = session.adapter._state.guest.machine
    close = machine.close

    def fail():
        close()
        raise TraplineError("trace.parquet: No space left on device")

    monkeypatch.setattr(machine, "close", fail)
    session.get(command, **({"threadId": 1} if command == "continue" else {}))
    told = {"category": "important", "output": "trapline: trace.parquet: No space left on device\n"}
    assert told in session.events("output")
    assert len(session.events("terminated")) == (command != "disconnect")
    assert session.adapter.is_done == (command == "disconnect")
    assert "there is no guest" in session.refused("stepIn", threadId=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guest": "/nowhere"}, "no such file"),
        ({"guest": "sample:colour"}, "no sample guest"),
        ({}, "nothing to run"),
        ({"guest": "sample:ud", "entryMode": 17}, "Invalid enum value 17 - at `$.entryMode`"),
        ({"guest": "sample:ud", "symbols": "kernel.elf"}, "Expected `array`, got `str` - at `$.symbols`"),
        ({"guest": "sample:ud", "processor": "z80"}, "choose one of"),
        ({"guest": "sample:ud", "memory": "much"}, "not a size"),
        ({"guest": "sample:ud", "loadAddress": "-1"}, "a whole number"),
        ({"guest": "sample:ud", "qemuOptions": ["-serial", "stdio"]}, "QEMU's devices cannot have them"),
    ],
)
def test_a_launch_that_cannot_be_is_told(arguments, message):
    with Session(stdio=True) as session:
        session.get("initialize", adapterID="trapline")
        assert message in session.refused("launch", **arguments)
        assert session.events("initialized") == []


def test_a_misspelt_argument_of_a_launch_is_told(session):
    session.launch("sample:ud", exeptions="all", type="trapline", __sessionId="1")
    assert [each["output"] for each in session.events("output")] == ["trapline: a launch has no argument 'exeptions'\n"]


def test_requests_out_of_place_are_told(session):
    assert "there is no guest" in session.refused("configurationDone")
    assert "there is no guest" in session.refused("continue", threadId=1)
    assert "cannot attach" in session.refused("attach")
    assert session.get("threads") == {"threads": []}
    assert "path format" in session.refused("initialize", adapterID="x", pathFormat="uri")
    session.launch("sample:ud")
    assert "launched already" in session.refused("launch", guest="sample:ud")
    session.get("pause", threadId=1)
    session.get("terminate")
    assert session.events("terminated") == [None]
    session.get("disconnect")
    assert session.adapter.is_done


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"type": "request"}', b"\xff", b"[" * 5000, b'{"seq": "1"}'])
def test_what_is_not_a_request_is_told(body):
    with pytest.raises(UsageError, match="what is not a request"):
        read_request(body)


def test_completions(session):
    session.launch("sample:ud")
    assert {"label": "discard", "start": 0, "length": 3} in session.get("completions", text="dis", column=4)["targets"]
    found = session.get("completions", text="[rs", column=4)["targets"]
    assert {"label": "rsp", "start": 1, "length": 2} in found
