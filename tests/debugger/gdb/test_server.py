"""The loop that serves gdb."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.acceptance.runs import LIMIT
from trapline.api import Machine
from trapline.debugger.gdb.console import Console
from trapline.debugger.gdb.endpoint import (
    LOOPBACK,
    ConnectionClosed,
    Endpoint,
    Listener,
    PipeConnection,
    SocketConnection,
    parse_endpoint,
)
from trapline.debugger.gdb.packets import Decoder, Mark, encode
from trapline.debugger.gdb.server import Server
from trapline.debugger.gdb.stub import End
from trapline.debugger.runner import Runner
from trapline.debugger.target import Target
from trapline.errors import ProcessorLost, UsageError

SPIN = bytes.fromhex("ebfe")
OFF = bytes.fromhex("b0fe e664 f4")
LETTERS = bytes.fromhex("b041 e6e9 b00a e6e9 ebfe")
"""`mov al, 'A'; out 0xe9, al; mov al, '\\n'; out 0xe9, al; jmp $`"""


class Client:
    """A client on a socket."""

    def __init__(self, connected):
        connected.settimeout(LIMIT)
        self._socket, self._decoder, self._found = connected, Decoder(), []

    def send(self, payload):
        self._socket.sendall(encode(payload))

    def interrupt(self):
        self._socket.sendall(b"\x03")

    def receive(self):
        """Return the next packet, or a mark; None: the server has hung up."""
        while not self._found:
            data = self._socket.recv(4096)
            if not data:
                return None
            self._found += self._decoder.feed(data)
        return self._found.pop(0)

    def packet(self):
        """Return the payload of the next packet."""
        while isinstance(found := self.receive(), Mark):
            pass
        return found

    def ask(self, payload):
        self.send(payload)
        return self.packet()

    def close(self):
        self._socket.close()


class Serving:
    """A server in a thread."""

    def __init__(self, code, folder, **options):
        self.said, self.end, self.error, self._clients = [], None, None, []
        self.machine = Machine(code, entry_mode=16, console=options.get("console"))
        self.target = Target(self.machine)
        self.listener = Listener(Endpoint(path=folder / "gdb"))
        self._server = Server(
            self.target,
            self.listener,
            attached=True,
            exit_code=lambda: self.machine.result().exit_code,
            say=self.said.append,
            **options,
        )
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        try:
            self.end = self._server.serve()
        except BaseException as error:  # noqa: BLE001  # `join` looks at it
            self.error = error

    def connect(self):
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(self.listener.endpoint.path))
        self._clients.append(Client(connected))
        return self._clients[-1]

    def join(self):
        """Wait for the end of all."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        assert self.error is None
        return self.end

    def close(self):
        for client in self._clients:
            client.close()
        self.machine.close()
        self.listener.close()


@pytest.fixture
def serve(tmp_path):
    """Return a function that serves a guest in real mode."""
    with contextlib.ExitStack() as stack:

        def serve(code, **options):
            serving = Serving(code, tmp_path, **options)
            stack.callback(serving.close)
            return serving

        yield serve


def test_packets_are_acknowledged_until_that_is_not_wanted(serve):
    serving = serve(SPIN)
    client = serving.connect()
    client.send(b"qC")
    assert [client.receive(), client.receive()] == [Mark.ACK, b"QC1"]
    client._socket.sendall(b"-")
    assert client.receive() == b"QC1"
    client._socket.sendall(b"$qC#00")
    assert client.receive() is Mark.NACK
    client.send(b"QStartNoAckMode")
    assert [client.receive(), client.receive()] == [Mark.ACK, b"OK"]
    client.send(b"qC")
    assert client.receive() == b"QC1"
    client.send(b"k")
    assert serving.join() is End.KILLED


def test_a_guest_that_stops_by_itself_as_it_is_interrupted_is_not_stopped_again(serve, monkeypatch):
    start = Runner.start

    def start_and_wait(runner, work):
        start(runner, work)
        select.select([runner], [], [], LIMIT)

    monkeypatch.setattr(Runner, "start", start_and_wait)
    serving = serve(bytes.fromhex("90 90 ebfc"))
    client = serving.connect()
    assert client.ask(b"Z0,7c01,1") == b"OK"
    client._socket.sendall(encode(b"vCont;c") + b"\x03")
    assert client.packet() == b"T05thread:1;"
    assert client.ask(b"vCont;c") == b"T05thread:1;"
    client.send(b"k")
    assert serving.join() is End.KILLED


def test_a_running_guest_is_interrupted_and_left(serve):
    serving = serve(SPIN)
    client = serving.connect()
    client.send(b"vCont;c")
    client.interrupt()
    assert client.packet() == b"T02thread:1;"
    client.interrupt()  # it is stopped: this is for when it is resumed
    assert client.ask(b"qC") == b"QC1"
    assert client.ask(b"vCont;c") == b"T02thread:1;"
    client.send(b"vCont;c")
    client.send(b"qC")  # waits until the guest has stopped
    client.interrupt()
    assert [client.packet(), client.packet()] == [b"T02thread:1;", b"QC1"]
    assert client.ask(b"D") == b"OK"
    assert serving.join() is End.DETACHED
    assert client.packet() is None


def test_a_second_debugger_is_refused_in_words_and_the_first_goes_on(serve):
    serving = serve(SPIN)
    first = serving.connect()
    assert first.ask(b"qC") == b"QC1"
    second = serving.connect()
    assert b"another debugger is connected" in second.ask(b"qSupported")
    assert b"another debugger is connected" in second.ask(b"vMustReplyEmpty")
    second.close()
    others = [serving.connect() for _ in range(20)]
    assert first.ask(b"qC") == b"QC1"
    for other in others:
        other.close()
    assert first.ask(b"vKill;1") == b"OK"
    assert serving.join() is End.KILLED


def test_another_debugger_can_come_after_one_that_was_lost(serve):
    serving = serve(SPIN)
    first = serving.connect()
    assert first.ask(b"Z0,7c00,1") == b"OK"
    first.send(b"vCont;c")
    assert first.packet() == b"T05thread:1;"
    first.ask(b"z0,7c00,1")
    first.send(b"vCont;c")
    first.close()
    second = serving.connect()
    while b"another" in (answer := second.ask(b"?")):
        pass
    assert answer == b"S05"
    assert not list(serving.target.machine.breakpoints)
    assert "another debugger can connect" in serving.said[0]
    second.ask(b"D")
    assert serving.join() is End.DETACHED


def test_a_guest_that_ends_ends_all(serve):
    serving = serve(OFF)
    assert serving.connect().ask(b"c") == b"W00"
    assert serving.join() is End.EXITED


def test_the_console_is_in_gdb_while_the_guest_runs(serve):
    console = Console()
    serving = serve(LETTERS, console=console)
    client = serving.connect()
    client.send(b"c")
    text = ""
    while text != "A\n":
        text += bytes.fromhex(client.packet()[1:].decode()).decode()
    client.interrupt()
    assert client.packet() == b"T02thread:1;"
    client.send(b"k")
    serving.join()
    console.close()


def test_what_ends_besides_ends_all(serve, tmp_path):
    ours, theirs = socket.socketpair()
    serving = serve(SPIN, until=ours.fileno())
    client = serving.connect()
    client.send(b"c")
    theirs.close()
    assert serving.join() is End.KILLED
    ours.close()


def test_a_client_does_not_wait_for_a_guest_that_is_lost_as_all_ends(serve, monkeypatch):
    ours, theirs = socket.socketpair()
    serving = serve(SPIN, until=ours.fileno())
    client = serving.connect()
    assert client.ask(b"qC") == b"QC1"
    run = serving.machine.run

    def lose(*arguments):
        run(*arguments)
        raise ProcessorLost("QEMU is gone")

    monkeypatch.setattr(serving.machine, "run", lose)
    client.send(b"c")
    theirs.close()
    assert client.packet() is None
    serving._thread.join(LIMIT)
    assert isinstance(serving.error, ProcessorLost)
    ours.close()


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("1234", Endpoint(LOOPBACK, 1234)),
        (":1234", Endpoint(LOOPBACK, 1234)),
        ("[::1]:1", Endpoint("[::1]", 1)),
        ("stdio", Endpoint(stdio=True)),
    ],
)
def test_where_gdb_connects(text, endpoint):
    assert parse_endpoint(text) == endpoint


def test_a_pipe_that_cannot_be_read_is_a_client_that_is_gone(tmp_path):
    """As a terminal that hung up."""
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ConnectionClosed, match="directory"):
            PipeConnection(directory).read()
    finally:
        os.close(directory)


@pytest.mark.parametrize("text", ["", "0", "65536", "unix:", "localhost", "1234x", "-1"])
def test_where_nobody_can_connect(text):
    with pytest.raises(UsageError):
        parse_endpoint(text)


def test_an_address_that_is_taken(tmp_path):
    first = Listener(Endpoint(path=tmp_path / "gdb"))
    with pytest.raises(UsageError, match="no debugger can connect there"):
        Listener(Endpoint(path=tmp_path / "gdb"))
    first.close()
    assert not (tmp_path / "gdb").exists()
    with pytest.raises(UsageError, match="no debugger can connect there"):
        Listener(Endpoint("256.0.0.1", 1))


@pytest.fixture
def command():
    """Return a function that starts `trapline run` with pipes."""

    def command(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "trapline", "run", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return command


@pytest.mark.slow
def test_over_standard_input_and_output(command):
    run = command("sample:panic", "--gdb", "stdio", "--catch", "pf")
    decoder, found = Decoder(), []

    def ask(payload, last):
        run.stdin.write(encode(payload))
        run.stdin.flush()
        while last not in found:
            found.extend(decoder.feed(os.read(run.stdout.fileno(), 4096)))

    ask(b"c", b"T0bthread:1;")
    text = [each for each in found if isinstance(each, bytes) and each.startswith(b"O")]
    assert b"#PF" in bytes.fromhex(text[0][1:].decode())
    ask(b"D", b"OK")
    _, err = run.communicate(timeout=LIMIT)
    assert b"guest: debug exit" in err
    assert run.returncode == 4


@pytest.mark.slow
def test_over_a_port_until_ctrl_c(command, tmp_path):
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "spin").write_bytes(SPIN)
    run = command(tmp_path / "spin", "--entry-mode", "16", "--gdb", port)
    assert f"target remote {LOOPBACK}:{port}".encode() in run.stderr.readline()
    client = Client(socket.create_connection((LOOPBACK, port)))
    client.send(b"c")
    assert client.receive() is Mark.ACK
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=LIMIT)
    client.close()
    assert b"guest: interrupted" in err
    assert run.returncode == 130


def test_a_connection_that_is_gone():
    ours, theirs = socket.socketpair()
    connection = SocketConnection(ours)
    theirs.close()
    from trapline.debugger.gdb.endpoint import ConnectionClosed

    with pytest.raises(ConnectionClosed):
        connection.read()
    with pytest.raises(ConnectionClosed):
        connection.write(b"x" * 1000000)
    connection.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--catch", "pf"], "--catch is for --gdb"),
        (["--gdb", "1234", "--timeout", "1"], "--timeout cannot be given with gdb"),
        (["--gdb", "stdio", "--json"], "both write to stdout"),
        (["--gdb", "nowhere"], "give [HOST:]PORT"),
    ],
)
def test_options_that_do_not_go_together(capsys, words, said):
    from trapline.cli.main import main

    assert main(["run", "sample:ud", *words]) == 2
    assert said in capsys.readouterr().err
