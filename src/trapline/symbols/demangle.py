"""Demangles names of C++ and Rust, by libraries of the extra `symbols`.

cpp-demangle is the Rust crate of that name and, unlike cxxfilt, needs no libstdc++; rust-demangler is pure Python and
reads both of Rust's manglings, which C++ demanglers do not. Without them a name is shown mangled.
"""

import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Final

_RUST: Final = re.compile(r"(_R[A-Za-z0-9_]+|_ZN.*17h[0-9a-f]{16}E)(\..*)?")
_HASH: Final = re.compile(r"::h[0-9a-f]{16}$")
_CPP: Final = re.compile(r"(_Z[^.]+)(\..*)?")
_REPEATED: Final = re.compile(r"S[0-9A-Z]*_|T[0-9]*_|B[0-9a-zA-Z]*_")
"""What repeats an earlier part of a name: of repetitions of repetitions 229 bytes can make 100 MB."""
_REPETITIONS: Final = 30
_LONGEST: Final = 4096
"""Bytes of a mangled name."""

_PRINTS: Final = {"rust_demangler": ("rust_demangler.rust_v0",)}
"""Modules of a library that print a name that they cannot demangle."""


def demangle(name: str) -> str:
    """Return the demangled name; one that is not mangled, or may demangle to a huge name, is returned unchanged."""
    if not name.startswith("_") or len(name) > _LONGEST or len(_REPEATED.findall(name)) > _REPETITIONS:
        return name
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
        return str(function(name))
    except Exception:  # noqa: BLE001  # for a malformed name they raise IndexError, ValueError and their own
        return None


@cache
def _library(name: str) -> Callable[[str], str] | None:
    try:
        demangle: Callable[[str], str] = import_module(name).demangle
        for module in _PRINTS.get(name, ()):  # and other threads may print meanwhile
            vars(import_module(module))["print"] = _print_nothing
    except ImportError:
        return None
    return demangle


def _print_nothing(*_: object) -> None:
    pass
