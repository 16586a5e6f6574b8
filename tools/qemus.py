"""Get QEMUs of other Debian releases, and keep them in the cache of `tools.testguests`: the tests run on each of them.

The packages come from the mirror that apt uses. They are unpacked, with the libraries that they need, and never
installed, so this needs no root. `python -m tools.qemus` fills the cache and names the programs; with a release it
prints the folder of its program, for PATH:

    PATH="$(python -m tools.qemus trixie):$PATH" python -m pytest tests/processors/qemu
"""

from __future__ import annotations

import sys
from pathlib import Path

from .releases import Release, new_tree, unpack
from .testguests import Unobtainable, cache_directory

PROGRAM = "qemu-system-x86_64"
RELEASES = {"trixie": "QEMU 10.0", "sid": "the newest"}
"""Debian's releases, and which QEMU each has."""

_PACKAGES = ("qemu-system-x86", "seabios")
_WRAPPER = """\
#!/bin/sh
# QEMU with the libraries of its own release.
root={root}
exec "$root/{loader}" --library-path "$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu" \\
    "$root/usr/bin/{program}" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "$@"
"""
_LOADERS = ("usr/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2")
"""After and before the merge of /usr."""


def program(release: str) -> Path:
    """Return the QEMU of a release, which is downloaded at first; raises Unobtainable."""
    tree = cache_directory() / f"qemu-{release}"
    found = tree / "bin" / PROGRAM
    if found.exists():
        return found
    with new_tree(tree) as (scratch, unpacked):
        unpack(_download(release, scratch), unpacked / "root")
        _write_wrapper(unpacked, tree)
    return found


def _download(release: str, folder: Path) -> list[Path]:
    """Return the archives of QEMU and of all it depends on."""
    return Release(release, folder).with_dependencies(*_PACKAGES)


def _write_wrapper(unpacked: Path, tree: Path) -> None:
    loader = next(name for name in _LOADERS if (unpacked / "root" / name).exists())
    wrapper = unpacked / "bin" / PROGRAM
    wrapper.parent.mkdir()
    wrapper.write_text(_WRAPPER.format(root=tree / "root", loader=loader, program=PROGRAM))
    wrapper.chmod(0o755)


def main(releases: list[str]) -> int:
    """Fill the cache; the exit status is 1 when a QEMU is not available."""
    if unknown := [release for release in releases if release not in RELEASES]:
        print(f"no release named {unknown[0]!r}; there are {', '.join(RELEASES)}", file=sys.stderr)
        return 2
    status = 0
    for release in releases or RELEASES:
        try:
            path = program(release)
        except Unobtainable as reason:
            print(f"{release:8} {reason}", file=sys.stderr)
            status = 1
        else:
            print(path.parent if releases else f"{release:8} {path}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
