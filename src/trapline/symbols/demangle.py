"""Names of C++ and Rust as their programmers wrote them, by libraries of the extra `symbols`.

cpp-demangle is the Rust crate of that name and needs no libstdc++ on the machine, as cxxfilt does; rust-demangler is
pure Python and reads both of Rust's manglings, of which C++ demanglers read neither well. Without them a name is
shown as it stands.
"""

import contextlib
import io
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Final

_RUST: Final = re.compile(r"(_R[A-Za-z0-9_]+|_ZN.*17h[0-9a-f]{16}E)(\..*)?")
_HASH: Final = re.compile(r"::h[0-9a-f]{16}$")
_CPP: Final = re.compile(r"(_Z[^.]+)(\..*)?")


def demangle(name: str) -> str:
    """Return a readable name; a name that is not mangled comes back as it is."""
    if match := _RUST.fullmatch(name):
        found = _ask("rust_demangler", match[1])
        return name if found is None else _HASH.sub("", found) + (match[2] or "")
    if match := _CPP.fullmatch(name):
        found = _ask("cpp_demangle", match[1])
        return name if found is None else found + (match[2] or "")
    return name


def _ask(library: str, name: str) -> str | None:
    function = _library(library)
    if function is None:
        return None
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # one of them talks
            return str(function(name))
    except Exception:  # noqa: BLE001  # of a name that is none they raise IndexError, ValueError and their own
        return None


@cache
def _library(name: str) -> Callable[[str], str] | None:
    try:
        demangle: Callable[[str], str] = import_module(name).demangle
    except ImportError:
        return None
    return demangle
