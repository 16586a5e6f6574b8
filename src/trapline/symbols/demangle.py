"""Demangles names of C++ and Rust, by libraries of the extra `symbols`.

cpp-demangle is the Rust crate of that name and, unlike cxxfilt, needs no libstdc++; rust-demangler is pure Python and
reads both of Rust's manglings, which C++ demanglers do not. Without them a name is shown mangled.
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
    """Return the demangled name; a name that is not mangled is returned unchanged."""
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
        with contextlib.redirect_stdout(io.StringIO()):  # one of them prints
            return str(function(name))
    except Exception:  # noqa: BLE001  # for a malformed name they raise IndexError, ValueError and their own
        return None


@cache
def _library(name: str) -> Callable[[str], str] | None:
    try:
        demangle: Callable[[str], str] = import_module(name).demangle
    except ImportError:
        return None
    return demangle
