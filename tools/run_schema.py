"""Writes docs/run.schema.json, the JSON schema of what `trapline run --json` prints, from the types of the document.

The texts of the schema are the docstrings of the types and of their members.
"""

import ast
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from trapline.explain import document as explain_document
from trapline.report import document as report_document

PATH: Final = Path(__file__).parents[1] / "docs" / "run.schema.json"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_MODULES: Final = (explain_document, report_document)


def schema() -> dict[str, Any]:
    """Return the schema of a RunDocument."""
    found = msgspec.json.schema(report_document.RunDocument)
    texts = _described(*_MODULES)
    for name, definition in found["$defs"].items():
        definition["description"] = _on_one_line(definition["description"])
        for member, text in texts[name].items():
            definition["properties"][member]["description"] = text
    return {"$schema": _DIALECT, "title": "The result of a run", **found}


def text() -> str:
    """Return the content of the file."""
    return json.dumps(schema(), indent=2) + "\n"


def _described(*modules: ModuleType) -> dict[str, dict[str, str]]:
    """Return for each class the docstrings of its members, with those of the classes that it extends."""
    found: dict[str, dict[str, str]] = {}
    for module in modules:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                inherited = [found.get(base.id, {}) for base in node.bases if isinstance(base, ast.Name)]
                found[node.name] = {name: text for each in inherited for name, text in each.items()}
                found[node.name] |= _members(node)
    return found


def _members(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for member, after in zip(node.body, node.body[1:], strict=False):
        match member, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = _on_one_line(text)
    return found


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
