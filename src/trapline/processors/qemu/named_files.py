"""The files that QEMU's options may name, by the syntax of options alone: which of them exist is not asked here."""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence


def named_files(options: Sequence[str]) -> Iterator[str]:
    """Yield what may be the name of a file in QEMU's options: too much rather than too little, but never empty.

    Of `-drive file=a,,b.img,format=raw` that is `a,b.img`, of `-serial file:log` `log`, of `-hda x` `x`.
    """
    for option in options:
        yield from filter(None, _names(option))


def _names(option: str) -> Iterator[str]:
    yield option
    start = option.find("{")
    if start >= 0 and (start == 0 or option[:start].endswith("json:")):
        with contextlib.suppress(ValueError, RecursionError):
            yield from _texts(json.loads(option[start:]))
    for escaped in option.replace(",,", "\0").split(","):  # two commas are one in a value
        part = escaped.replace("\0", ",")
        for name in {part, part.partition("=")[2] or part}:
            yield name
            yield from name.split()[:1]  # a multiboot module with its arguments
            for place in re.finditer(":", name):  # a protocol or a driver: file:NAME, fat:rw:NAME
                yield name[place.end() :].removeprefix("//")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from _names(value)
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
