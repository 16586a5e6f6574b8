"""Get axe-core, which checks pages for accessibility, from npm's registry; it is kept in the cache of the test guests.

`python -m tools.axe` prints its path.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from .npm import package, print_path

VERSION: Final = "4.14.1"
_SHA256: Final = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"


def axe_core() -> Path:
    """Return the script, downloading it at first."""
    return package("axe-core", VERSION, _SHA256) / "axe.min.js"


if __name__ == "__main__":
    sys.exit(print_path(axe_core))
