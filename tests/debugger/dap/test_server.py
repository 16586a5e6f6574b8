"""The adapter as a process: while the guest runs, it listens."""

import select
import signal
import socket
import subprocess

import pytest

from tests.debugger.dap.client import COMMAND, SECONDS, Client, start
from trapline.cli.main import main
from trapline.debugger.dap import server
from trapline.debugger.dap.refusing import BUSY

SPIN = bytes.fromhex("40 ebfd")
"""`again: inc ax; jmp again`, in real mode."""
JUMP = 0x7C01
WRITE = bytes.fromhex("b061 e6e9 ebfa")
"""`again: mov al, 'a'; out 0xe9, al; jmp again`."""


@pytest.fixture
def code(tmp_path):
    """Return a function that writes code for real mode to a file, and returns its path."""

    def code(data):
        path = tmp_path / "code.bin"
        path.write_bytes(data)
        return path

    return code


@pytest.fixture
def client():
    client = Client()
    yield client
    client.process.kill()
    client.process.communicate()


def test_a_running_guest_is_paused_watched_and_ended(client, code):
    client.launch(code(SPIN), entryMode=16)
    assert client.ask("stackTrace", threadId=1)["message"] == "the guest runs: pause it first"
    assert client.get("readMemory", memoryReference="0x7c00", count=3)["data"] == "QOv9"
    client.get("pause", threadId=1)
    assert client.wait("stopped")["reason"] == "pause"
    client.get("continue", threadId=1)
    asked = [{"instructionReference": hex(JUMP)}]
    body = client.get("setInstructionBreakpoints", breakpoints=asked)["breakpoints"][0]
    assert client.wait("stopped")["hitBreakpointIds"] == [body["id"]]
    client.get("setInstructionBreakpoints", breakpoints=[])
    client.get("continue", threadId=1)
    client.get("restart")
    client.get("pause", threadId=1)
    assert client.wait("stopped")["reason"] == "pause"
    client.get("continue", threadId=1)
    client.get("terminate")
    client.wait("terminated")
    client.get("disconnect")
    assert client.end() == (0, "")


@pytest.mark.qemu
@pytest.mark.slow
def test_a_guest_on_qemu_is_stopped_from_its_first_instruction_on(client, code):
    client.launch(code(SPIN.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20)), processor="qemu")
    client.get("setInstructionBreakpoints", breakpoints=[{"instructionReference": hex(JUMP)}])  # SeaBIOS starts
    assert client.wait("stopped")["reason"] == "instruction breakpoint"
    client.get("setInstructionBreakpoints", breakpoints=[])
    client.get("continue", threadId=1)
    client.get("pause", threadId=1)
    assert client.wait("stopped")["reason"] == "pause"
    client.get("continue", threadId=1)
    client.get("disconnect")
    assert client.end() == (0, "")


def test_a_client_may_leave_while_the_guest_runs(client, code):
    client.launch(code(SPIN), entryMode=16)
    client.get("disconnect")
    assert client.end() == (0, "")


def test_a_guest_that_writes_without_end_is_paused(client, code):
    client.launch(code(WRITE), entryMode=16)
    assert set(client.wait("output")["output"]) == {"a"}
    client.get("pause", threadId=1)
    assert client.wait("stopped")["reason"] == "pause"
    client.process.stdin.close()
    client.process.stdin = None
    assert client.process.wait(SECONDS) == 0


def test_what_is_not_the_protocol_is_one_line():
    done = subprocess.run(COMMAND, input=b"Content-Length: 20\r\n\r\n{", capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stderr) == (2, b"trapline: the client hung up within a message\n")


def test_a_message_that_is_not_a_request_is_told_and_the_session_goes_on(client):
    client.process.stdin.write(b"Content-Length: 2\r\n\r\n[]")
    client.get("initialize", adapterID="trapline")
    assert "what is not a request" in client.wait("output")["output"]
    assert client.ask("threads")["body"] == {"threads": []}


def test_clients_come_to_a_port_one_after_the_other(code):
    server = start("--port", "0", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        port = int(server.stderr.readline().rpartition(b":")[2])
        for _ in range(2):
            client = Client(port)
            client.launch(code(SPIN), entryMode=16)
            second = Client(port)
            refused = second.ask("initialize", adapterID="trapline")
            assert (refused["success"], refused["message"]) == (False, BUSY)
            assert not second.receive()  # it is hung up on
            second.socket.close()
            client.socket.close()  # it hangs up while the guest runs
            client._in.close()
            client._out.close()
        with socket.create_connection(("127.0.0.1", port), SECONDS) as other:
            other.sendall(b"hello\r\n\r\n")
            assert other.recv(1) == b""
        assert b"without a Content-Length" in server.stderr.readline()
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 143
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("port", ["-1", "65536", "x", ""])
def test_a_port_that_there_is_not(port, capsys):
    assert main(["dap", f"--port={port}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("trapline: --port")
    assert err.count("\n") == 1


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["dap", "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"trapline: --port {port}: Address already in use\n"


def test_a_wait_for_a_client_ends_now_and_then(monkeypatch):
    """For a signal that came just before it: its handler runs between two waits."""
    waits, wait = [], select.select

    def counted(*arguments):
        waits.append(arguments[3])
        if len(waits) == 3:
            raise KeyboardInterrupt
        return wait(*arguments)

    monkeypatch.setattr(server, "LOOK", 0.01)
    monkeypatch.setattr(select, "select", counted)
    with pytest.raises(KeyboardInterrupt):
        server.listen(0, lambda port: None)
    assert waits == [0.01] * 3
