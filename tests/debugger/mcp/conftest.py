import anyio
import pytest
from mcp import Client

from trapline.debugger.mcp.files import Files
from trapline.debugger.mcp.guests import Access
from trapline.debugger.mcp.server import make_server
from trapline.debugger.mcp.small import CAP


class Session:
    """A client of a server, without threads of its own: each test is one conversation."""

    def __init__(self, client):
        self.client = client
        self.calls = 0

    async def call(self, tool, **arguments):
        """Return the typed answer."""
        result = await self._call(tool, arguments)
        assert not result.is_error, result.content[0].text
        return result.structured_content

    async def error(self, tool, **arguments):
        """Return the sentence of an error."""
        result = await self._call(tool, arguments)
        assert result.is_error
        return result.content[0].text

    async def _call(self, tool, arguments):
        self.calls += 1
        result = await self.client.call_tool(tool, arguments)
        assert len(result.model_dump_json(by_alias=True)) <= CAP
        return result


@pytest.fixture
def talk(tmp_path, monkeypatch):
    """Return a function that lets a coroutine talk to a server that was started in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(conversation, **access):
        async def connected():
            async with Client(make_server(Access(Files([tmp_path]), **access))) as client:
                return await conversation(Session(client))

        return anyio.run(connected)

    return run
