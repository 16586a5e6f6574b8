"""Packages of npm's registry for tests, without npm: they are pinned by the hashes of their archives, and kept."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .testguests import Unobtainable, cache_directory

_REGISTRY: Final = "https://registry.npmjs.org"
_SECONDS: Final = 60


def package(name: str, version: str, sha256: str) -> Path:
    """Return the directory with a package's files, downloading it at first."""
    short = name.rpartition("/")[2]
    folder = cache_directory() / f"npm-{short}-{version}"
    if folder.is_dir():
        return folder
    url = f"{_REGISTRY}/{name}/-/{short}-{version}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            archive = answer.read()
    except OSError as error:
        raise Unobtainable(f"{name} cannot be had: {error}") from error
    if (found := hashlib.sha256(archive).hexdigest()) != sha256:
        raise Unobtainable(f"{name} cannot be had: {url} has the SHA-256 {found}")
    # Unpacked beside its place and renamed when whole.
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix=f".{short}-") as scratch:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            for member in files:
                path = Path(scratch, member.name)
                content = files.extractfile(member)
                if content is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())
        try:
            (Path(scratch) / "package").rename(folder)
        except OSError:
            if not folder.is_dir():  # another run was first
                raise
    return folder


def print_path(get: Callable[[], Path]) -> int:
    """Print the path of what `get` returns; the exit status is 1 when it is not available."""
    try:
        print(get())
    except Unobtainable as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0
