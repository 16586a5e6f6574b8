"""The scene of a shutdown: the instruction with its neighbours, and who called, for people and for programs."""

from collections.abc import Iterator
from typing import IO, Any, Final

from trapline.asm.disassembler import around
from trapline.scene import Scene
from trapline.symbols import Names

_WORDS: Final = 8
"""Words of the stack that are shown where no callers are known."""
_BYTES: Final = 8
"""Bytes of an instruction that are shown."""


def print_scene(scene: Scene, names: Names, syntax: str, file: IO[str]) -> None:
    """Print the code with the instruction marked, then the callers, or else the stack."""
    digits = {16: 5, 32: 8, 64: 16}[scene.bits]
    lines = around(scene.code, scene.code_address, scene.address, scene.bits, syntax=syntax)
    symbol = names.lookup(scene.address)
    title = "code" if symbol is None else f"code, in {symbol}"
    print(title if lines else f"{title}: nothing is mapped at {scene.address:#x}", file=file)
    for line in lines:
        mark = "->" if line.address == scene.address else "  "
        data = line.data[:_BYTES].hex() + (".." if len(line.data) > _BYTES else "")
        print(f"{mark}{line.address:0{digits}x}  {data:<18}  {line.text}", file=file)
    if scene.callers:
        print("called from, by frame pointers: a guess", file=file)
        for address in scene.callers:
            print(f"  {address:0{digits}x}  {names.caller(address) or ''}".rstrip(), file=file)
    else:
        print(f"stack at {scene.stack_address:#x}" if scene.stack else "stack: not mapped", file=file)
        for row in _stack(scene, names):
            print(f"  {row}", file=file)
    print(file=file)


def json_scene(scene: Scene, names: Names, syntax: str) -> dict[str, Any]:
    """Return the same as an object."""
    lines = around(scene.code, scene.code_address, scene.address, scene.bits, syntax=syntax)
    return {
        "bits": scene.bits,
        "code": [
            {
                "address": f"{line.address:#x}",
                "bytes": line.data.hex(),
                "text": line.text,
                "at": line.address == scene.address,
            }
            for line in lines
        ],
        "callers_guessed": [_named(address, names) for address in scene.callers],
        "stack_address": f"{scene.stack_address:#x}",
        "stack": [f"{word:#x}" for word in scene.stack],
    }


def _named(address: int, names: Names) -> dict[str, str]:
    symbol = names.caller(address)
    found = {"address": f"{address:#x}"}
    if symbol is not None:
        found["symbol"] = symbol.place
        if symbol.source is not None:
            found["source"] = symbol.source
    return found


def _stack(scene: Scene, names: Names) -> Iterator[str]:
    """Yield the words at the stack pointer, a row of four or two each, and those that are addresses of code by name."""
    width = scene.bits // 4
    words = scene.stack[:_WORDS]
    row = 64 // (width + 1)
    for at in range(0, len(words), row):
        yield " ".join(f"{word:0{width}x}" for word in words[at : at + row])
    for word in scene.stack:
        symbol = names.caller(word)
        if symbol is not None:
            yield f"{word:0{width}x} may be {symbol}"
