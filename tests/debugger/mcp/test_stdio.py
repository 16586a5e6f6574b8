"""The command itself, over its standard input and output."""

import json
import os
import signal
import subprocess
import sys

import anyio
import pytest
from mcp import Client, StdioServerParameters

LOOP = bytes.fromhex("ebfe")
"""`jmp $`, in real mode."""
OUTPUT = bytes.fromhex("b041 e6e9 f4")
"""`mov al, 'A'; out 0xe9, al; hlt`, in real mode: it writes to the console."""


def environment(folder):
    return {**os.environ, "TMPDIR": str(folder)}


def test_a_hunt_over_stdio(tmp_path):
    (tmp_path / "loop").write_bytes(LOOP)
    (tmp_path / "output").write_bytes(OUTPUT)
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "trapline", "mcp"], cwd=tmp_path, env=environment(tmp_path)
    )

    async def conversation():
        async with Client(command, mode="legacy") as client:
            tools = (await client.list_tools()).tools
            assert all(
                each.output_schema and each.annotations and not each.annotations.destructive_hint for each in tools
            )
            raw = {"entry_mode": 16}
            answer = await client.call_tool("run", {"guest": "output", "options": raw})
            assert answer.structured_content["console"] == "A"
            with anyio.fail_after(60):
                async with anyio.create_task_group() as group:
                    group.start_soon(client.call_tool, "run", {"guest": "loop", "options": raw, "timeout": 600})
                    await client.list_prompts()
                    answer = await client.call_tool("run", {"guest": "sample:no-idt"})
                    assert "no IDT is loaded" in answer.structured_content["cause"]
                    group.cancel_scope.cancel()

    anyio.run(conversation)
    assert not list(tmp_path.glob("trapline-mcp-*"))


def test_a_directory_that_is_none(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "trapline", "mcp", "--allow", "x" * 5000],
        cwd=tmp_path,
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("trapline: --allow x")


@pytest.mark.parametrize("end", [None, signal.SIGTERM])
def test_it_ends_while_a_guest_spins(tmp_path, end):
    (tmp_path / "loop").write_bytes(LOOP)
    with subprocess.Popen(
        [sys.executable, "-m", "trapline", "mcp"],
        cwd=tmp_path,
        env=environment(tmp_path),
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
        assert list(tmp_path.glob("trapline-mcp-*"))
        if end is None:
            server.stdin.close()
        else:
            server.send_signal(end)
        assert server.wait(60) == (0 if end is None else 128 + end)
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in server.stdout)
    assert not list(tmp_path.glob("trapline-mcp-*"))
