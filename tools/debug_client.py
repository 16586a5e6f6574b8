"""Get the client that VS Code's makers test debug adapters with, from npm's registry; it is kept in the cache.

`python -m tools.debug_client` prints the path of its module for node.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from .npm import package, print_path

_NAME: Final = "@vscode/debugadapter-testsupport"
_VERSION: Final = "1.68.0"
_SHA256: Final = "d323290681405fd77808bebfa8e0f2ffeee4e6e6a35fdeb0d4c3a0540fda9e9c"


def debug_client() -> Path:
    """Return the module, downloading it at first."""
    return package(_NAME, _VERSION, _SHA256) / "lib" / "main.js"


if __name__ == "__main__":
    sys.exit(print_path(debug_client))
