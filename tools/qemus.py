"""Get QEMUs of other Debian releases, and keep them in the cache of `tools.testguests`: the tests run on each of them.

The packages come from the mirror that apt uses. They are unpacked, with the libraries that they need, and never
installed, so this needs no root. `python -m tools.qemus` fills the cache and names the programs; with a release it
prints the folder of its program, for PATH:

    PATH="$(python -m tools.qemus trixie):$PATH" python -m pytest tests/processors/qemu
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .testguests import Unobtainable, cache_directory, missing_tools, output_of

PROGRAM = "qemu-system-x86_64"
RELEASES = {"trixie": "QEMU 10.0", "sid": "the newest"}
"""Debian's releases, and which QEMU each has."""

_PACKAGES = ("qemu-system-x86", "seabios")
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
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
    if missing := missing_tools("apt-get", "dpkg-deb"):
        raise Unobtainable(f"QEMU of {release} is not in the cache, and {missing[0]} is not installed")
    # Unpacked beside its place and renamed when whole: a broken download leaves nothing.
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix=f".qemu-{release}-") as scratch:
        unpacked = Path(scratch, "tree")
        unpacked.mkdir()
        for archive in _download(release, Path(scratch)):
            output_of(archive.name, ["dpkg-deb", "-x", str(archive), str(unpacked / "root")], Path(scratch))
        _write_wrapper(unpacked, tree)
        try:
            unpacked.rename(tree)
        except OSError:
            if not found.exists():  # else another run was first
                raise
    return found


def _download(release: str, folder: Path) -> list[Path]:
    """Return the archives of QEMU and of all it depends on: to apt nothing is installed."""
    if not _KEYS.exists():
        raise Unobtainable(f"QEMU of {release} is not in the cache, and {_KEYS} is missing")
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYS}] {_mirror(folder)} {release} main\n")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",
    }
    apt = ["apt-get", "-q", "-y", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]
    output_of(f"QEMU of {release}", [*apt, "update"], folder)
    install = ["install", "--no-install-recommends", "--download-only", *_PACKAGES]
    output_of(f"QEMU of {release}", [*apt, *install], folder)
    return sorted((folder / "cache/archives").glob("*.deb"))


def _mirror(folder: Path) -> str:
    """Return the address of the first repository that apt uses."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = [line for line in output_of("apt's mirror", command, folder).split() if "security" not in line]
    if not found:
        raise Unobtainable("apt has no repository")
    return found[0]


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
