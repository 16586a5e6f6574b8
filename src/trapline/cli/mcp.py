"""`trapline mcp`: serves agents over stdin and stdout."""

import argparse
from pathlib import Path

from trapline.errors import UsageError
from trapline.session.extras import require

from .termination import exit_code_of


def mcp(options: argparse.Namespace) -> int:
    """Answer until stdin ends, or a signal comes, and return the exit code."""
    require("mcp", "mcp", "pyarrow")
    from trapline.debugger.mcp.files import Files
    from trapline.debugger.mcp.guests import Access
    from trapline.debugger.mcp.server import serve
    from trapline.debugger.mcp.stdin import EndingStdin

    access = Access(Files(_allowed(options.allow)), options.qemu, options.allow_qemu_options)
    with EndingStdin() as stdin:
        serve(access)
    return 0 if stdin.came is None else exit_code_of(stdin.came)


def _allowed(named: list[str]) -> list[str]:
    """Return the directories whose files clients may name. Raises UsageError if that would be every file."""
    here = Path.cwd()
    if here != Path(here.anchor):
        return [str(here), *named]
    if not named:
        raise UsageError(
            "mcp was started in /, below which are all files: start it in a directory, or give --allow DIR"
        )
    return named
