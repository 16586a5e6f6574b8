"""Send a stub of gdb's remote protocol random packets, and damaged sessions.

    python -m tools.gdb_fuzzing --packets 200000 --sessions 50000 --seed S

The stub must answer each packet with packets that gdb can take, or say that the session is over. A guest that a packet
lets run is interrupted.
"""

import argparse
import gc
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from trapline.api import Machine
from trapline.debugger.gdb.packets import LARGEST, Decoder, Mark, encode, escape
from trapline.debugger.gdb.stub import Answer, End, Stub
from trapline.debugger.target import Target
from trapline.errors import TraplineError

GUEST: Final = bytes.fromhex("b90300 e80400 e2fb 0f0b 40 c3 ebfe")
"""`mov cx, 3; again: call add; loop again; ud2; add: inc ax; ret; jmp $`, in real mode."""
RUN: Final = 0.002
"""Seconds for which a packet may let the guest run."""
_FRESH: Final = 1000
"""Packets or sessions after which there is a new guest."""
LONGEST: Final = 5.0
"""Seconds that a packet may take, on a busy machine."""

COMMANDS: Final = (
    *(
        "help",
        "catch ud",
        "catch pf if cpl == 0",
        "catch",
        "delete 1",
        "delete all",
        "why",
        "last 3",
        "forward",
        "discard",
    ),
    *("discard skip", "inject gp 0x10", "inject pf 2 0x1000", "idt", "gdt", "ldt", "tss", "walk $pc", "walk 0x7c00"),
    *("disassemble", "disassemble 0x7c00 5", "backtrace", "physical on", "physical off", "registers control", "type x"),
)
PACKETS: Final = (
    *(
        b"qSupported:swbreak+;hwbreak+;xmlRegisters=i386",
        b"vMustReplyEmpty",
        b"Hg0",
        b"Hc-1",
        b"qC",
        b"?",
        b"qAttached",
    ),
    *(b"qXfer:features:read:target.xml:0,1000", b"qXfer:features:read:target.xml:1000,1000", b"qfThreadInfo"),
    *(b"qsThreadInfo", b"qThreadExtraInfo,1", b"T1", b"g", b"p8", b"p3a", b"P1=02000000", b"m7c00,40", b"m500,2"),
    *(b"M600,2:0102", b"X600,3:\x07}\x03\x00", b"x7c00,10", b"Z0,7c06,1", b"z0,7c06,1", b"Z1,7c08,1", b"z1,7c08,1"),
    *(b"Z2,500,2", b"z2,500,2", b"Z4,500,4", b"z4,500,4", b"Z3,500,4", b"QPassSignals:e;10;b;4", b"QPassSignals:"),
    *(b"vCont?", b"vCont;c", b"vCont;s:1", b"vCont;C04:1;c", b"vCont;S0b:1", b"vCont;r7c00,7c08:1", b"c", b"s", b"C04"),
    *(b"S05;7c00", b"c7c00", b"qXfer:siginfo:read::0,40", b"qqemu.PhyMemMode", b"Qqemu.PhyMemMode:1", b"G00"),
    *(b"qTrapline.Disassemble:7c00,att", b"D", b"k", b"vKill;1", b"QStartNoAckMode", b"qTStatus", b"R00"),
    *(b"qRcmd," + command.encode().hex().encode() for command in COMMANDS),
)


class Failure(NamedTuple):
    """A packet that was not answered as it should be."""

    payload: bytes
    what: str


class Player:
    """Plays packets to a stub; a guest that cannot go on is replaced by a new one."""

    def __init__(self) -> None:
        self._machine, self._target = self._new()
        self._stub = self._session()
        self._decoder = Decoder()
        self.failures: list[Failure] = []
        self.packets = self.runs = 0
        self.guests = 1
        self.slowest = 0.0

    def begin(self, *, fresh: bool = False) -> None:
        """Begin a session; `fresh`: on a new guest."""
        self._stub.close()
        if fresh or self._target.is_over:
            self.close()
            self._machine, self._target = self._new()
            self.guests += 1
        self._stub = self._session()
        self._decoder = Decoder()

    def close(self) -> None:
        """Switch the guest off, and free its memory, which a garbage collection does not know the size of."""
        self._machine.close()
        gc.collect()

    def _new(self) -> tuple[Machine, Target]:
        machine = Machine(GUEST, entry_mode=16, memory="1M", keep=1000)
        return machine, Target(machine)

    def _session(self) -> Stub:
        machine = self._machine
        return Stub(self._target, attached=True, exit_code=lambda: machine.result().exit_code)

    def send(self, payload: bytes) -> bool:
        """Let the stub answer a packet, and check the answer; return whether the session goes on."""
        started = time.monotonic()
        self.packets += 1
        try:
            answer = self._stub.handle(payload)
            end = self._check(payload, answer)
            if answer.work is not None:
                end = self._check(payload, self._run(answer))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            self.failures.append(Failure(payload, repr(error)))
            end = End.KILLED
        took = time.monotonic() - started
        self.slowest = max(self.slowest, took)
        if took > LONGEST:
            self.failures.append(Failure(payload, f"{took:.1f} s"))
        return end is None and not self._target.is_over

    def receive(self, data: bytes) -> bool:
        """Take bytes as they arrive; return whether the session goes on."""
        for received in self._decoder.feed(data):
            if not isinstance(received, Mark) and not self.send(received):
                return False
        return True

    def _run(self, answer: Answer) -> Answer:
        assert answer.work is not None
        self.runs += 1
        timer = threading.Timer(RUN, self._target.interrupt)
        timer.start()
        try:
            return self._stub.stopped(answer.work())
        except TraplineError as error:
            return self._stub.failed(error)
        finally:
            timer.cancel()
            timer.join()

    def _check(self, payload: bytes, answer: Answer) -> End | None:
        if not answer.replies and answer.work is None and answer.end is None:
            self.failures.append(Failure(payload, "no answer"))
        for reply in answer.replies:
            if len(reply) > LARGEST:
                self.failures.append(Failure(payload, f"an answer of {len(reply)} bytes"))
            if Decoder().feed(encode(reply)) != [reply]:
                self.failures.append(Failure(payload, f"not a packet: {reply[:80]!r}"))
        return answer.end


def random_packet(choose: random.Random) -> bytes:
    """Return a payload: of the protocol with other numbers, damaged, or bytes."""
    kind = choose.random()
    if kind < 0.1:
        return choose.randbytes(choose.randrange(40))
    payload = choose.choice(PACKETS)
    if kind < 0.4:
        return damaged(payload, choose)
    if kind < 0.7:
        name = payload[: choose.randrange(1, 4)]
        return name + b",".join(b"%x" % choose.getrandbits(choose.choice((1, 8, 16, 32, 64, 80))) for _ in range(3))
    return payload


def damaged(data: bytes, choose: random.Random) -> bytes:
    """Return bytes with some changes."""
    changed = bytearray(data)
    for _ in range(choose.randrange(1, 4)):
        place = choose.randrange(len(changed) + 1)
        match choose.randrange(4):
            case 0:
                changed[place : place + 1] = choose.randbytes(1)
            case 1:
                del changed[place : place + choose.randrange(1, 5)]
            case 2:
                changed[place:place] = choose.randbytes(choose.randrange(1, 5))
            case _:
                changed[place:place] = changed[: choose.randrange(1, 9)]
    return bytes(changed)


def sessions(choose: random.Random) -> Iterator[bytes]:
    """Yield what a client sends in a session, in pieces; some of it is damaged."""
    packets = [choose.choice(PACKETS) for _ in range(choose.randrange(1, 12))]
    stream = b"+".join(encode(escape(packet) if choose.random() < 0.1 else packet) for packet in packets)
    stream = damaged(stream, choose) if choose.random() < 0.9 else stream
    while stream:
        size = choose.randrange(1, 200)
        yield stream[:size]
        stream = stream[size:]


def main() -> int:
    """Send what was asked for, and report."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.gdb_fuzzing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packets", type=int, default=20000)
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument("--seed", default=str(int(time.time())))
    options = parser.parse_args()
    print("seed", options.seed, flush=True)
    started = time.monotonic()
    failures = play(options.packets, options.sessions, options.seed, verbose=True)
    for failure in failures[:10]:
        print(f"{failure.payload!r}: {failure.what}")
    print(f"{len(failures)} failures, {time.monotonic() - started:.0f} s")
    return 1 if failures else 0


def play(packets: int, damaged_sessions: int, seed: str, *, verbose: bool = False) -> list[Failure]:
    """Send random packets, then damaged sessions; return what failed."""
    player = Player()
    for number in range(packets):
        if verbose and number % 20000 == 0:
            print(f"packet {number:,}, {len(player.failures)} failures", flush=True)
        if not player.send(random_packet(random.Random(f"packet {seed} {number}"))) or number % _FRESH == 0:
            player.begin(fresh=number % _FRESH == 0)
    if verbose:
        figures = f"{player.runs:,} runs, {player.guests:,} guests"
        print(f"{player.packets:,} packets, {figures}, {player.slowest:.2f} s at most", flush=True)
    for number in range(damaged_sessions):
        if verbose and number % 5000 == 0:
            print(f"session {number:,}, {len(player.failures)} failures", flush=True)
        player.begin(fresh=number % _FRESH == 0)
        all(map(player.receive, sessions(random.Random(f"session {seed} {number}"))))
    if verbose:
        print(f"{damaged_sessions:,} sessions: {player.packets - packets:,} packets, {player.guests:,} guests in all")
    player.close()
    return player.failures


if __name__ == "__main__":
    sys.exit(main())
