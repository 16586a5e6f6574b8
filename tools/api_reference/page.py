"""The page: the template, with the references of the names that it marks.

A line `::: NAME ...` becomes the reference of public names, or of `module:NAME`, a type that they give. `::: options`
becomes the table of the keywords of `run` and `Machine`.
"""

import importlib
import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Final

import trapline
from trapline.arch.vectors import VECTORS, Vector
from trapline.session import settings

from .source import Kind, Member, constant, constructor, function, members

TEMPLATE: Final = Path(__file__).with_name("template.md")
PAGE: Final = Path(__file__).parents[2] / "docs" / "api.md"
_MARK: Final = "::: "
_OPTIONS: Final = "options"
_MADE_BY_USERS: Final = frozenset({"Machine", "Condition", "ScriptedProcessor", "FaultError", "LaunchError"})
"""Classes whose constructor is part of the interface."""


def page() -> str:
    """Return the text of the page."""
    return "\n".join(_lines(TEMPLATE.read_text(encoding="utf-8"))) + "\n"


def marked_names() -> list[str]:
    """Return the names whose references the template asks for, in its order."""
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()
    marks = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
    return [name for mark in marks for name in mark.split() if name != _OPTIONS]


def find(name: str) -> object:
    """Return the object that a name of the template means."""
    module, colon, attribute = name.rpartition(":")
    found: object = getattr(importlib.import_module(module) if colon else trapline, attribute)
    return found


def members_of(cls: type) -> list[Member]:
    """Return the members of a class, and those of its bases that have no reference of their own.

    What a class gives another value, but no other meaning, is described with its base.
    """
    described = [find(name) for name in marked_names()]
    bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("trapline.") and base not in described]
    found = {member.name: member for each in (*reversed(bases), cls) for member in members(each)}
    inherited = {name for base in cls.__mro__[1:] if base in described for name in vars(base)}
    return [member for member in found.values() if member.doc or member.name not in inherited]


def _lines(template: str) -> Iterator[str]:
    for line in template.splitlines():
        if not line.startswith(_MARK):
            yield line
        elif line == _MARK + _OPTIONS:
            yield from _options()
        else:
            for name in line.removeprefix(_MARK).split():
                yield f"### {name.rpartition(':')[2]}\n"
                yield from _reference(name)
                yield ""


def _reference(name: str) -> Iterator[str]:
    module, colon, attribute = name.rpartition(":")
    value = find(name)
    if colon:
        yield f"`{module}.{attribute}`"
        yield ""
    if inspect.isclass(value):
        yield from _enum(value) if issubclass(value, Enum) else _class(value)
        return
    if inspect.isfunction(value):
        text, doc = function(value, attribute)
    else:
        home = importlib.import_module(trapline._HOME[attribute])  # noqa: SLF001  # the table of the public names
        text, doc = constant(home.__file__ or "", attribute)
    yield from _code(text)
    yield doc
    if type(value).__module__.startswith("trapline.") and not isinstance(value, Enum):
        yield from _members(type(value))


def _class(cls: type) -> Iterator[str]:
    if cls.__name__ in _MADE_BY_USERS:
        text, doc = constructor(cls)
        yield from _code(text)
        yield inspect.cleandoc(cls.__doc__ or "")
        if doc:
            yield f"\n{doc}"
    else:
        yield inspect.cleandoc(cls.__doc__ or "")
    bases = [base.__name__ for base in cls.__bases__ if base.__name__ in trapline.__all__]
    if bases:
        yield f"\nIt is a {bases[0]}."
    yield from _members(cls)


def _members(cls: type) -> Iterator[str]:
    found = members_of(cls)
    attributes = [member for member in found if member.kind is Kind.ATTRIBUTE]
    described = [member for member in attributes if member.type or member.doc]
    if described:
        yield "\n| attribute | type | |\n| --- | --- | --- |"
    for member in described:
        yield f"| `{member.name}` | {_cell(member.type.partition(' = ')[0])} | {_flat(member.doc)} |"
    others = [f"`{member.name}`" for member in attributes if member not in described]
    if others:
        yield f"\nAttributes: {', '.join(others)}."
    for member in found:
        if member.kind is Kind.METHOD:
            yield ""
            yield from _code(member.type)
            yield member.doc


def _enum(cls: type[Enum]) -> Iterator[str]:
    yield inspect.cleandoc(cls.__doc__ or "")
    yield "\n| member | value | |\n| --- | --- | --- |"
    documented = {member.name: member for member in members(cls)}
    for value in cls:
        doc = VECTORS[value].name if isinstance(value, Vector) else _flat(documented[value.name].doc)
        yield f"| `{value.name}` | `{value.value!r}` | {doc} |"
        del documented[value.name]
    for member in documented.values():
        yield f"\n`{member.name}: {member.type}`: {member.doc}"


def _options() -> Iterator[str]:
    documented = {member.name: member for member in (*members(settings.Settings), *members(settings.Outlets))}
    defaults = vars(settings.Settings()) | vars(settings.Outlets())
    yield "| keyword | type | |\n| --- | --- | --- |"
    for name in settings.MachineOptions.__annotations__:
        kind, _, _ = documented[name].type.partition(" = ")
        default = f" Default: `{defaults[name]!r}`." if defaults[name] else ""
        yield f"| `{name}` | {_cell(kind)} | {_flat(documented[name].doc)}{default} |"


def _cell(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> Iterator[str]:
    yield f"```py\n{text}\n```\n"
