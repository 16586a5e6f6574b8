"""`trapline mcp`: serves agents over stdin and stdout."""

import argparse
from pathlib import Path
from typing import Final

from trapline.session.extras import require

_BASE: Final = 128
"""Added to the number of a signal, as shells do."""


def mcp(options: argparse.Namespace) -> int:
    """Answer until stdin ends, or a signal comes, and return the exit code."""
    require("mcp", "mcp", "pyarrow")
    from trapline.debugger.mcp.files import Files
    from trapline.debugger.mcp.guests import Access
    from trapline.debugger.mcp.server import serve
    from trapline.debugger.mcp.stdin import EndingStdin

    access = Access(Files([Path.cwd(), *options.allow]), options.qemu, options.allow_qemu_options)
    with EndingStdin() as stdin:
        serve(access)
    return 0 if stdin.came is None else _BASE + stdin.came
