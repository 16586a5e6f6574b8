"""What the source says of a class or function: signatures, and the docstrings below attributes, which Python drops."""

import ast
import inspect
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_WIDEST: Final = 100
"""Of a signature on one line."""


class Kind(Enum):
    """How a member is used."""

    ATTRIBUTE = "attribute"
    METHOD = "method"


class Member(NamedTuple):
    """A public member of a class."""

    name: str
    kind: Kind
    type: str
    """Of an attribute, with its default, or the signature of a method; "": the source does not say."""
    doc: str


def members(cls: type) -> list[Member]:
    """Return the public members that a class defines itself, in the order of the source."""
    found: dict[str, Member] = {}
    for node, doc in _with_docs(_class(cls).body):
        if isinstance(node, ast.FunctionDef):
            if node.name == "__init__":
                found |= {each.name: each for each in _set_by(node)}
            elif not node.name.startswith("_"):
                found[node.name] = _function_member(node, found)
        else:
            found |= {name: Member(name, Kind.ATTRIBUTE, _type(node), doc) for name in _targets(node)}
    return list(found.values())


def constructor(cls: type) -> tuple[str, str]:
    """Return the signature of a constructor, and what it says."""
    body = _class(cls).body
    node = next(n for n in body if isinstance(n, ast.FunctionDef) and n.name in ("__init__", "__new__"))
    node.returns = None
    return signature(node, cls.__name__), ast.get_docstring(node) or ""


def function(value: object, name: str) -> tuple[str, str]:
    """Return the signature of a function, under the name that it has for users, and its docstring."""
    assert inspect.isfunction(value)
    node = _named(_tree(inspect.getfile(value)).body, value.__name__)
    assert isinstance(node, ast.FunctionDef)
    return signature(node, name), ast.get_docstring(node) or ""


def constant(file: str, name: str) -> tuple[str, str]:
    """Return the assignment to a name in a module, and the text below it."""
    for node, doc in _with_docs(_tree(file).body):
        if name in _targets(node) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            return f"{name} = {ast.unparse(node.value)}", doc
    raise LookupError(f"{file} does not assign {name}")


def signature(node: ast.FunctionDef, name: str) -> str:
    """Return a signature on one line, or with a line for each parameter."""
    parameters = list(_parameters(node.args))
    result = f" -> {_text(node.returns)}" if node.returns else ""
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) <= _WIDEST:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in parameters), f"){result}"])


def _parameters(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: Sequence[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    for parameter, default in zip(positional, [*missing, *arguments.defaults], strict=True):
        if parameter.arg not in ("self", "cls"):
            yield _parameter(parameter, default)
    if arguments.vararg:
        yield f"*{_parameter(arguments.vararg, None)}"
    elif arguments.kwonlyargs:
        yield "*"
    for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(parameter, default)
    if arguments.kwarg:
        yield f"**{_parameter(arguments.kwarg, None)}"


def _parameter(parameter: ast.arg, default: ast.expr | None) -> str:
    text = f"{parameter.arg}: {_text(parameter.annotation)}" if parameter.annotation else parameter.arg
    return text if default is None else f"{text} = {ast.unparse(default)}"


def _function_member(node: ast.FunctionDef, found: dict[str, Member]) -> Member:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    doc = ast.get_docstring(node) or ""
    if f"{node.name}.setter" in decorators:
        return found[node.name]._replace(type=f"{found[node.name].type}, writable")
    if "property" in decorators:
        return Member(node.name, Kind.ATTRIBUTE, _text(node.returns), doc)
    return Member(node.name, Kind.METHOD, signature(node, node.name), doc)


def _set_by(constructor: ast.FunctionDef) -> Iterator[Member]:
    """Yield the attributes that a constructor sets and documents."""
    for node, doc in _with_docs(constructor.body):
        for name in _targets(node, "self.") if doc else ():
            yield Member(name, Kind.ATTRIBUTE, _type(node).partition(" = ")[0], doc)


def _with_docs(body: Sequence[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each statement with the string below it, if any."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        value = after.value if isinstance(after, ast.Expr) else None
        doc = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
        yield node, inspect.cleandoc(doc)


def _targets(node: ast.stmt, prefix: str = "") -> list[str]:
    """Return the public names that a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    single = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
    names = [text.removeprefix(prefix) for each in single if (text := ast.unparse(each)).startswith(prefix)]
    return [name for name in names if name.isidentifier() and not name.startswith("_")]


def _type(node: ast.stmt) -> str:
    if not isinstance(node, ast.AnnAssign):
        return ""
    return _text(node.annotation) + (f" = {ast.unparse(node.value)}" if node.value else "")


def _text(node: ast.expr | None) -> str:
    """Return a type as it is written, without the quotes that the order of the source needs."""
    return "" if node is None else ast.unparse(node).replace("'", "")


def _class(cls: type) -> ast.ClassDef:
    node = _named(_tree(inspect.getfile(cls)).body, cls.__name__)
    assert isinstance(node, ast.ClassDef)
    return node


def _named(body: Sequence[ast.stmt], name: str) -> ast.stmt:
    return next(node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name)


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))
