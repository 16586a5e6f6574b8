"""Requests at random, and streams of damaged bytes: each is answered or told, and nothing is an error in trapline."""

import contextlib
import json
import random
import re
import threading

import pytest
from msgspec import Raw

from tests.debugger.dap.schema import check
from trapline.debugger.dap.adapter import Adapter
from trapline.debugger.dap.framing import Incoming, framed
from trapline.debugger.dap.messages import Request, encode, read_request
from trapline.debugger.dap.requests import REQUESTS
from trapline.debugger.dap.server import run
from trapline.errors import UsageError

LOOP = bytes.fromhex("b90300 e80400 e2fb 0f0b 40 c3 f4")
REQUESTS_EACH = 500
PAUSE = 1 << 20
"""The number of a request that is not one of those."""
SPUN = 0.05
"""Seconds for which a guest may run."""
WORDS = (
    *("rax", "rip", "eax", "[rsp]", "dword [0x7c00]", "0x7c0a", "0x7c00/1", "0xffffffffffffffff", "-1", "phys:0x7c00"),
    *("discard", "discard skip", "inject gp 0", "inject df", "why", "last 3", "rax = 5", "cr3 = rsp", "word [0] = 1"),
    *("ud", "pf", "df", "shutdown", "cpl == 0", "rax == 1", "% 2", "> 1", "instruction", "statement", "write", "read"),
    *("", " ", "\0", "é" * 40, "(" * 90, "[" * 900, "x" * 3000, "main.c", "/", "QUJD", "{rax} {", "colour", "vector"),
    *("readWrite", "rsp + 8", "1 << 63", "repl", "hover", "watch", "path", "0x7c00 + rax * 4", "efer = 0xffff"),
)
NUMBERS = (0, 1, 2, 3, 8, -1, -5, 100, 4096, 5000, 0x7C00, 1 << 31, 1 << 63, (1 << 64) - 1, 1 << 70, 1.5, True, None)
NAMES = (
    *("threadId", "frameId", "variablesReference", "name", "value", "expression", "context", "memoryReference"),
    *("count", "offset", "instructionOffset", "instructionCount", "data", "breakpoints", "filters", "filterOptions"),
    *("source", "line", "text", "column", "granularity", "startFrame", "levels", "start", "allowPartial", "bytes"),
    *("path", "condition", "hitCondition", "logMessage", "dataId", "accessType", "filterId", "instructionReference"),
    *("asAddress", "sourceReference", "linesStartAt1", "arguments", "resolveSymbols", "endLine"),
)
PLACES = ("0x7c06", "0x7c0a", "rip", "rsp - 8", "phys:0x7c00", "[0x7c02]", "0x100000", "colour")
VALUES = ("rax", "rip", "cs_base", "error_code", "0x55", "rbx + 1", "dword [0x7c00]", "bl", "ax", "why", "last 2")
KINDS = {
    **dict.fromkeys(("memoryReference", "instructionReference"), PLACES),
    **dict.fromkeys(("name", "value", "expression"), (*VALUES, "discard", "discard skip", "inject gp 0", "rax = 5")),
    **dict.fromkeys(("count", "instructionCount", "variablesReference"), range(40)),
    **dict.fromkeys(("column", "line", "offset", "startFrame", "levels", "frameId", "endLine"), range(-3, 9)),
    "instructionOffset": range(-20, 20),
    "filters": ([], ["ud"], ["ud", "shutdown", "df"], ["colour"], ["pf", "ud"]),
    "filterId": ("ud", "shutdown", "colour"),
    "condition": (None, "rax == 1", "cpl == 0", "colour", "byte [rip] == 0x40"),
    "hitCondition": ("2", "> 1", "% 2", "colour", ""),
    "logMessage": ("rax is {rax}", "{colour} {", ""),
    "accessType": ("read", "write", "readWrite"),
    "dataId": ("0x7c00/1", "0x7bfe/2", "0x0/0", "colour"),
    "data": ("QA==", "kJCQ", "6/4=", "!"),
    "text": ("dis", "[r", "inject "),
    "granularity": ("instruction", "line", "statement"),
    "context": ("repl", "hover", "watch"),
    "source": ({"path": "main.c"}, {"name": "x"}, {}),
    "breakpoints": ([],),
    "filterOptions": ([],),
}
NEEDED = {
    "evaluate": ["expression", "context"],
    "variables": ["variablesReference"],
    "scopes": ["frameId"],
    "setVariable": ["variablesReference", "name", "value"],
    "setExpression": ["expression", "value"],
    "readMemory": ["memoryReference", "count"],
    "writeMemory": ["memoryReference", "data"],
    "disassemble": ["memoryReference", "instructionCount"],
    "dataBreakpointInfo": ["name"],
    "setExceptionBreakpoints": ["filters", "filterOptions"],
    "completions": ["text", "column"],
    **{f"set{kind}Breakpoints": ["breakpoints", "source"] for kind in ("", "Function", "Instruction", "Data")},
}
INSIDE = ("line", "name", "instructionReference", "dataId", "filterId", "condition", "hitCondition")
"""What breakpoints and filters have: those of one kind leave out what is another's."""
LAST = ("terminate", "disconnect")


class Dice(random.Random):
    """Makes requests."""

    seen = ()
    """Numbers of containers that were told last."""

    def value(self, name="", depth=0):
        """Return something for an argument, mostly of its kind."""
        kinds = KINDS.get(name)
        if kinds is None or self.random() < 0.1:
            return self.choice((*WORDS, *NUMBERS, [], {}))
        if name == "variablesReference" and self.seen:
            return self.choice(self.seen[-20:])
        if name in ("breakpoints", "filterOptions") and depth < 2:
            return [self.named(depth + 1, INSIDE) for _ in range(self.randrange(4))]
        return self.choice(kinds)

    def named(self, depth, names=()):
        """Return an object with arguments."""
        more = self.sample(NAMES, self.randrange(5)) if self.random() < 0.2 else ()
        return {name: self.value(name, depth) for name in (*names, *more)}

    def request(self, number):
        """Return a request."""
        command = self.choice([*REQUESTS, "continue", "next", "stepIn", "pause", "evaluate", "restart", "colour"])
        return {
            "seq": number,
            "type": "request",
            "command": command,
            "arguments": self.named(0, NEEDED.get(command, ())),
        }


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 40))])
def test_any_requests_are_answered(seed, tmp_path):
    dice, answered = Dice(f"dap {seed}"), []
    path = tmp_path / "code.bin"
    path.write_bytes(LOOP)

    def post(message):
        found = json.loads(encode(message, 1))
        check(
            found if found["command" if "command" in found else "event"] != "colour" else {**found, "command": "next"}
        )
        assert "an error in trapline" not in json.dumps(found), (request, found)
        dice.seen = re.findall(r'"variablesReference": ([1-9]\d*)', json.dumps(found)) or dice.seen
        dice.seen = [int(each) for each in dice.seen]
        if found["type"] == "response":
            answered.append(found["request_seq"])

    adapter = launched = None
    for number in range(1, REQUESTS_EACH):
        request = dice.request(number)
        if adapter is None or adapter.is_done or (request["command"] in LAST and dice.random() < 0.8):
            if adapter is not None:
                adapter.leave()
            adapter = Adapter(post)
            launched = {"guest": str(path), "entryMode": 16, "stopOnEntry": dice.random() < 0.8}
            adapter.handle(Request(PAUSE, "setExceptionBreakpoints", Raw(b'{"filters": ["ud", "shutdown"]}')))
            request = {**request, "command": "launch", "arguments": launched}
        if request["command"] in ("launch", "restart"):
            request["arguments"] = launched if request["command"] == "launch" else {}
        work = adapter.handle(read_request(json.dumps(request).encode()))
        while work is not None:
            if dice.random() < 0.2:
                adapter.interrupt()
            work = adapter.ran(result(adapter, work))
        assert number in answered[-2:]
    adapter.leave()
    assert len([number for number in answered if number != PAUSE]) == REQUESTS_EACH - 1


def result(adapter, work):
    """Run a guest as the server does; one that would run for ever is paused."""
    pause = threading.Timer(SPUN, adapter.handle, [Request(PAUSE, "pause")])
    pause.start()
    try:
        return run(work)
    finally:
        pause.cancel()
        pause.join()


@pytest.mark.parametrize("seed", range(3))
def test_damaged_streams_are_read_or_told(seed):
    dice = Dice(f"stream {seed}")
    for _ in range(300):
        stream = bytearray(b"".join(framed(json.dumps(dice.request(number)).encode()) for number in range(5)))
        for _ in range(dice.randrange(6)):
            place = dice.randrange(len(stream))
            stream[place : place + dice.randrange(3)] = dice.randbytes(dice.randrange(4))
        incoming = Incoming()
        with contextlib.suppress(UsageError):
            for place in range(0, len(stream), 97):
                for body in incoming.feed(stream[place : place + 97]):
                    with contextlib.suppress(UsageError):
                        read_request(body)
