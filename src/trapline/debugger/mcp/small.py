"""Keeps answers small: an agent's context is dear, and a guest decides how much there is to say."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

from mcp_types import CallToolResult, TextContent

from .answers import Answer, Part

CAP: Final = 32 << 10
"""Bytes of the result of a call."""
PAGE: Final = 9 << 10
"""Bytes of JSON of the items of a page: an answer has them twice, as text and as values, and other members."""
_LIMITS: Final = ((4096, 64), (2048, 48), (1024, 32), (512, 16), (256, 8), (128, 4), (64, 2), (32, 0))
"""Characters of a text and items of a list, tried one after the other."""

_TOLD: Final = 8
"""Cuts that are told."""

Json: TypeAlias = Any
_P = TypeVar("_P", bound=Part)


def result_of(answer: Answer) -> CallToolResult:
    """Return an answer as the result of a call, below `CAP`: what is too long is cut, and the answer says so."""
    whole = answer.model_dump(mode="json", exclude_none=True)
    return next(result for result in map(_result, _shorter(whole)) if size_of(result) <= CAP)


def cut_to(size: int, document: dict[str, Json]) -> str:
    """Return a document as JSON of at most so many bytes: what is too long is cut, and its `left_out` says so."""
    return next(text for text in map(json.dumps, _shorter(document)) if len(text) <= size)


def size_of(result: CallToolResult) -> int:
    """Return the bytes of a result in a message."""
    return len(result.model_dump_json(by_alias=True, exclude_none=True).encode())


def page(items: Iterable[_P], limit: int) -> tuple[list[_P], bool]:
    """Return the first items, as long as they are few and small, but one at least; and whether there are more."""
    found: list[_P] = []
    left = PAGE
    for item in items:
        left -= len(item.model_dump_json(exclude_none=True))
        if found and (len(found) == limit or left < 0):
            return found, True
        found.append(item)
    return found, False


def _result(document: dict[str, Json]) -> CallToolResult:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=document)


def _shorter(document: dict[str, Json]) -> Iterator[dict[str, Json]]:
    yield document
    for characters, items in _LIMITS:
        left_out: list[str] = []
        cut = {name: _cut(value, name, characters, items, left_out) for name, value in document.items()}
        yield {**cut, "left_out": left_out[:_TOLD]}


def _cut(value: Json, name: str, characters: int, items: int, left_out: list[str]) -> Json:
    if isinstance(value, str) and len(value) > characters:
        left_out.append(f"{name}: {len(value) - characters:,} characters")
        return value[:characters]
    if isinstance(value, list):
        if len(value) > items:
            left_out.append(f"{name}: {len(value) - items:,} of {len(value):,}")
        return [_cut(each, name, characters, items, left_out) for each in value[:items]]
    if isinstance(value, dict):
        return {key: _cut(each, f"{name}.{key}", characters, items, left_out) for key, each in value.items()}
    return value
