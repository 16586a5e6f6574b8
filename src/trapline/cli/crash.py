"""Where a guest crashed: its state, the code at the instruction with its neighbours, and who called."""

from collections.abc import Iterator
from typing import IO, Final

from trapline.report.crash import CrashContext

_VALUES: Final = 8
"""Values of the stack that are shown where no callers are known."""
_BYTES: Final = 8
"""Bytes of an instruction that are shown."""


def print_crash(title: str, crash: CrashContext, file: IO[str]) -> None:
    """Print the state, the code with the instruction marked, then the callers, or else the stack."""
    registers = crash.registers
    print(
        f"{title}  cpl {registers.cpl}  {registers.cs.selector:04x}:{registers.rip:016x}  rsp {registers.rsp:#x}\n"
        f"  cr0 {registers.cr0:#x}  cr2 {registers.cr2:#x}  cr3 {registers.cr3:#x}  cr4 {registers.cr4:#x}  "
        f"efer {registers.efer:#x}\n"
        f"  idt {registers.idtr.base:#x} limit {registers.idtr.limit:#x}\n",
        file=file,
    )
    digits = {16: 5, 32: 8, 64: 16}[crash.bits]
    name = "code" if crash.symbol is None else f"code, in {crash.symbol}"
    print(name if crash.code else f"{name}: nothing is mapped at {crash.address:#x}", file=file)
    for line in crash.code:
        mark = "->" if line.address == crash.address else "  "
        data = line.data[:_BYTES].hex() + (".." if len(line.data) > _BYTES else "")
        print(f"{mark}{line.address:0{digits}x}  {data:<18}  {line.text}", file=file)
    if crash.callers:
        print("called from, by frame pointers: a guess", file=file)
        for frame in crash.callers:
            print(f"  {frame.address:0{digits}x}  {frame.symbol or ''}".rstrip(), file=file)
    else:
        print(f"stack at {crash.stack_address:#x}" if crash.stack else "stack: not mapped", file=file)
        for row in _stack(crash):
            print(f"  {row}", file=file)
    print(file=file)


def _stack(crash: CrashContext) -> Iterator[str]:
    """Yield the values at the stack pointer, then by name those that are addresses of code."""
    width = crash.bits // 4
    values = [entry.value for entry in crash.stack[:_VALUES]]
    row = 64 // (width + 1)
    for at in range(0, len(values), row):
        yield " ".join(f"{value:0{width}x}" for value in values[at : at + row])
    for entry in crash.stack:
        if entry.symbol is not None:
            yield f"{entry.value:0{width}x} may be {entry.symbol}"
