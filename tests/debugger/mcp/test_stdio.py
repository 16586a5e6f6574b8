"""The command itself, over its standard input and output."""

import json
import os
import signal
import subprocess
import sys

LOOP = bytes.fromhex("ebfe")
"""`jmp $`, in real mode."""
OUTPUT = bytes.fromhex("b041 e6e9 f4")
"""`mov al, 'A'; out 0xe9, al; hlt`, in real mode: it writes to the console."""


def test_a_signal_ends_it_while_a_guest_spins(tmp_path):
    (tmp_path / "loop").write_bytes(LOOP)
    (tmp_path / "output").write_bytes(OUTPUT)
    with subprocess.Popen(
        [sys.executable, "-m", "trapline", "mcp"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:

        def send(number, method, **params):
            message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            server.stdin.write(json.dumps(message) + "\n")
            server.stdin.flush()

        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        send(1, "initialize", **about)
        assert json.loads(server.stdout.readline())["result"]["serverInfo"]["name"] == "trapline"
        server.stdin.write('{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
        arguments = {"guest": "loop", "options": {"entry_mode": 16}, "timeout": 600}
        send(2, "tools/call", name="stop_at", arguments=arguments)
        send(3, "ping")
        assert json.loads(server.stdout.readline()) == {"jsonrpc": "2.0", "id": 3, "result": {}}
        send(4, "tools/call", name="run", arguments={"guest": "output", "options": {"entry_mode": 16}})
        answer = json.loads(server.stdout.readline())
        assert (answer["id"], answer["result"]["structuredContent"]["console"]) == (4, "A")
        assert list(tmp_path.glob("trapline-mcp-*"))
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 128 + signal.SIGTERM
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in server.stdout)
    assert not list(tmp_path.glob("trapline-mcp-*"))
