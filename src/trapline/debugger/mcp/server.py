"""The server: its tools, resources and the prompt, over stdio."""

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import anyio.to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import ValidationError, create_model

import trapline
from trapline.errors import TraplineError
from trapline.typed import one_line

from .answers import Answer
from .guests import Access
from .machine_tools import MachineTools
from .machines import Machines
from .resources import add_resources
from .small import result_of
from .stored import Runs
from .tools import Tools

_INSTRUCTIONS: Final = """\
trapline runs x86 guests (kernels, boot sectors, disk images) and intercepts every CPU exception before the guest sees
it. Start with `run`: its answer says why the guest ended and which call makes sense next. `stop_at` holds a guest at an
exception, before it is delivered, or at a triple fault, in the state before the reset. Answers have at most 32 KiB: go
on with `next_cursor`. `sample:NAME` are guests to try: sample:no-idt, sample:stack-overflow, sample:panic.
"""
_READS: Final = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_RUNS: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)


def make_server(access: Access) -> MCPServer[None]:
    """Return a server that gives access to what the user allowed."""
    runs = Runs(access.files)
    machines = Machines(runs)
    tools, of_machines = Tools(access, runs, machines), MachineTools(access, runs, machines)

    @asynccontextmanager
    async def lifespan(_: MCPServer[None]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            try:
                await anyio.to_thread.run_sync(machines.close_all)
            finally:
                runs.close()

    server = MCPServer[None](
        "trapline",
        title="trapline",
        instructions=_INSTRUCTIONS,
        version=trapline.__version__,
        log_level="WARNING",
        lifespan=lifespan,
        tools=[
            _tool(tools.run, "Run a guest", _RUNS),
            _tool(tools.explain, "Explain its faults", _READS),
            _tool(tools.exceptions, "List or count its exceptions", _READS),
            _tool(tools.diff, "Compare two runs", _READS),
            _tool(tools.import_log, "Import a log of QEMU", _RUNS),
            _tool(of_machines.stop_at, "Hold a guest at an exception", _RUNS),
            _tool(of_machines.resume, "Run a held guest on", _RUNS),
            _tool(of_machines.step, "Step a held guest", _RUNS),
            _tool(of_machines.registers, "Show registers", _READS),
            _tool(of_machines.tables, "Decode IDT, GDT, LDT and TSS", _READS),
            _tool(of_machines.page_walk, "Walk the page tables", _READS),
            _tool(of_machines.memory, "Show memory", _READS),
            _tool(of_machines.disassemble, "Show code", _READS),
        ],
    )
    add_resources(server, runs)
    return server


def serve(access: Access) -> None:
    """Answer on stdin and stdout until stdin ends."""
    make_server(access).run("stdio")


def _tool(method: Callable[..., Awaitable[Answer]], title: str, annotations: ToolAnnotations) -> Tool:
    """Return a tool whose answers are small, whose errors are sentences, and which takes no unknown arguments."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def call(**arguments: Any) -> CallToolResult:  # noqa: ANN401  # as the signature says
        try:
            return result_of(await method(**arguments))
        except TraplineError as error:
            raise ToolError(one_line(str(error.args[0]))) from error

    call.__signature__ = signature.replace(  # type: ignore[attr-defined]  # as functools.wraps does
        return_annotation=Annotated[CallToolResult, signature.return_annotation]
    )
    tool = _Tool.from_function(call, title=title, annotations=annotations)
    taken = tool.fn_metadata.arg_model
    strict = create_model(taken.__name__, __base__=taken)
    strict.model_config["extra"] = "forbid"
    strict.model_rebuild(force=True)
    tool.fn_metadata.arg_model = strict
    tool.parameters = strict.model_json_schema(by_alias=True)
    return tool


class _Tool(Tool):
    """A tool that says in a sentence what is wrong with its arguments."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:  # noqa: ANN401  # as the class does
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            wrong = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.__cause__.errors())
            taken = ", ".join(self.parameters["properties"])
            raise ToolError(one_line(f"{'; '.join(wrong)}. {self.name} takes {taken}.")) from error.__cause__
