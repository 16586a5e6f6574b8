"""Run the tests that need no QEMU with other Pythons than the machine's own.

A Python is one that the machine has, on PATH or by pyenv; else that of the Debian release that has it, from the mirror
that apt uses, unpacked with its libraries into the cache of `tools.testguests` and never installed, so this needs no
root. What the tests need is installed into `.venv/pythons`. `python -m tools.pythons 3.13` runs them with this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .releases import Release, new_tree, unpack
from .testguests import Unobtainable, cache_directory, output_of

VERSIONS = {"3.12": None, "3.13": "trixie", "3.14": "sid"}
"""The Pythons, and the Debian release that has each."""

_ROOT = Path(__file__).parent.parent
_WRAPPER = """\
#!/bin/sh
# Python with the libraries of its own release. By this file's path it finds its modules, and a virtual environment.
root={root}
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --argv0 "$0" --library-path "$root/usr/lib/x86_64-linux-gnu" \\
    "$root/usr/bin/{name}.elf" "$@"
"""
_LIBRARIES = ("libstdc++6",)
"""What wheels need of a release besides."""
_TESTS = ("-m", "not qemu and not slow and not soak", "--ignore=tests/acceptance")
_PARALLEL = ("--numprocesses", "auto", "--maxprocesses", "8", "--dist", "worksteal")


def python(version: str) -> Path:
    """Return a Python of this version, which may be downloaded at first; raises Unobtainable."""
    for found in _at_hand(version):
        if subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    if (release := VERSIONS[version]) is None:
        raise Unobtainable(f"Python {version} is not installed, and no release of Debian has it")
    tree = cache_directory() / f"python-{version}"
    if not tree.is_dir():
        _unpack(version, release, tree)
    return tree / "usr/bin" / f"python{version}"


def _at_hand(version: str) -> Iterator[Path]:
    """Return the programs that may be this Python; a shim of pyenv is one that may not run."""
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)


def _unpack(version: str, release: str, tree: Path) -> None:
    name = f"python{version}"
    with new_tree(tree) as (scratch, unpacked):
        unpack(Release(release, scratch).with_dependencies(name, *_LIBRARIES), unpacked)
        program = unpacked / "usr/bin" / name
        program.rename(program.with_name(f"{name}.elf"))
        program.write_text(_WRAPPER.format(root=tree, name=name))
        program.chmod(0o755)


def environment(version: str) -> Path:
    """Return the Python of a virtual environment that has what the tests need; raises Unobtainable."""
    folder = _ROOT / ".venv/pythons" / version
    found = folder / "bin/python"
    if not found.exists():
        # Debian's Python has no ensurepip; pip works on another Python than the one that runs it, too.
        output_of(f"Python {version}", [str(python(version)), "-m", "venv", "--without-pip", str(folder)], _ROOT)
    install = [sys.executable, "-m", "pip", "--python", str(found), "--disable-pip-version-check", "install", "--quiet"]
    output_of(f"what the tests need on Python {version}", [*install, "--editable", ".[qemu,symbols,dev]"], _ROOT)
    return found


def main(versions: list[str]) -> int:
    """Run the tests with each Python that is to be had; the exit status is 1 when one fails, or none is."""
    if unknown := [version for version in versions if version not in VERSIONS]:
        print(f"no Python {unknown[0]!r}; there are {', '.join(VERSIONS)}", file=sys.stderr)
        return 2
    statuses = []
    for version in versions or VERSIONS:
        try:
            found = environment(version)
        except Unobtainable as reason:
            print(f"skipped: {reason}", flush=True)
            continue
        print(output_of("its version", [str(found), "-VV"], _ROOT).strip(), flush=True)
        tests = subprocess.run([found, "-m", "pytest", "-q", "-rs", *_PARALLEL, *_TESTS], cwd=_ROOT, check=False)
        statuses.append(tests.returncode)
    return int(not statuses or any(statuses))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
