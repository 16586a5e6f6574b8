"""Packages of a Debian release that is not the machine's own, downloaded from the mirror that apt uses."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .testguests import Unobtainable, missing_tools, output_of

_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Release:
    """A release, with lists of its own in a folder; to this apt nothing is installed."""

    def __init__(self, name: str, folder: Path) -> None:
        """Get the lists; raises Unobtainable."""
        self._what = f"Debian {name}"
        self._folder = folder
        if missing := missing_tools("apt-get", "dpkg-deb"):
            raise Unobtainable(f"{self._what} cannot be had: {missing[0]} is not installed")
        if not _KEYS.exists():
            raise Unobtainable(f"{self._what} cannot be had: {_KEYS} is missing")
        sources = folder / "sources.list"
        sources.write_text(f"deb [signed-by={_KEYS}] {_mirror(folder)} {name} main\n")
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
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
        self._settings = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        self._run("apt-get", "-q", "update")

    def with_dependencies(self, *packages: str) -> list[Path]:
        """Return the archives of packages and of all that they depend on."""
        self._run("apt-get", "-q", "-y", "install", "--no-install-recommends", "--download-only", *packages)
        return sorted((self._folder / "cache/archives").glob("*.deb"))

    def alone(self, package: str) -> Path:
        """Return the archive of one package."""
        self._run("apt-get", "-q", "download", package)
        return next(self._folder.glob(f"{package}_*.deb"))

    def depended_on(self, package: str, start: str) -> str:
        """Return the package, by the start of its name, that one depends on."""
        lines = self._run("apt-cache", "depends", package).splitlines()
        names = [line.split()[-1] for line in lines if f"Depends: {start}" in line]
        if not names:
            raise Unobtainable(f"{self._what} has no {start} package that {package} depends on")
        return names[0]

    def _run(self, program: str, *arguments: str) -> str:
        return output_of(self._what, [program, *self._settings, *arguments], self._folder)


@contextlib.contextmanager
def new_tree(tree: Path) -> Iterator[tuple[Path, Path]]:
    """Give a folder for downloads and the one that becomes `tree` of the cache in the end.

    It lies beside its place and is renamed when whole: a broken download leaves nothing.
    """
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix=f".{tree.name}-") as scratch:
        unpacked = Path(scratch, "tree")
        unpacked.mkdir()
        yield Path(scratch), unpacked
        try:
            unpacked.rename(tree)
        except OSError:
            if not tree.is_dir():  # else another run was first
                raise


def unpack(archives: Iterable[Path], folder: Path) -> None:
    """Unpack packages into a folder."""
    for archive in archives:
        output_of(archive.name, ["dpkg-deb", "-x", str(archive), str(folder)], archive.parent)


def _mirror(folder: Path) -> str:
    """Return the address of the first repository that apt uses."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = [line for line in output_of("apt's mirror", command, folder).split() if "security" not in line]
    if not found:
        raise Unobtainable("apt has no repository")
    return found[0]
