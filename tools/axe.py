"""Get axe-core, which checks pages for accessibility, from npm's registry; it is kept in the cache of the test guests.

`python -m tools.axe` prints its path. The archive is pinned by its hash.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import urllib.request
from pathlib import Path
from typing import Final

from .testguests import Unobtainable, cache_directory

VERSION: Final = "4.14.1"
_URL: Final = f"https://registry.npmjs.org/axe-core/-/axe-core-{VERSION}.tgz"
_SHA256: Final = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
_MEMBER: Final = "package/axe.min.js"
_SECONDS: Final = 60


def axe_core() -> Path:
    """Return the script, downloading it at first."""
    path = cache_directory() / f"axe-{VERSION}.js"
    if path.is_file():
        return path
    try:
        with urllib.request.urlopen(_URL, timeout=_SECONDS) as answer:
            archive = answer.read()
    except OSError as error:
        raise Unobtainable(f"axe-core cannot be had: {error}") from error
    if (found := hashlib.sha256(archive).hexdigest()) != _SHA256:
        raise Unobtainable(f"axe-core cannot be had: {_URL} has the SHA-256 {found}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = files.extractfile(_MEMBER)
        assert member is not None, _MEMBER
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_bytes(member.read())
        scratch.replace(path)
    return path


def main() -> int:
    """Print the path; the exit status is 1 when it is not available."""
    try:
        print(axe_core())
    except Unobtainable as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
