"""The exceptions that a stopped guest never came back from, from their records and from its state.

An exception counts if its frame is intact on the stack that the guest uses, at SS:RSP or above, and if the guest is in
its handler: RIP is in the handler's code, or that of the next exception that counts, or a value below the frame is the
return address of one of its calls. A frame that a handler has returned through can stay in memory, but no such address
is then below it. A task gate pushes no frame: its exception counts if the guest is in its task.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from trapline.arch.bits import M32
from trapline.arch.events import Event
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import SOFTWARE_EXCEPTIONS
from trapline.arch.vmcb import SaveArea
from trapline.machine.linear import LONGEST, code_address, code_base, code_bits, read_mapped, stack_address
from trapline.machine.memory import GuestMemory
from trapline.trace.exception_record import ExceptionRecord
from trapline.trace.schema import mode_of

from .attempt import Attempt
from .handler_code import HandlerCode, handler_code
from .memory import PartialMemory, partial_memory
from .task import task_gate

_STACK: Final = 1 << 16
"""Bytes of the stack that are searched for frames."""
_LATER: Final = (0, 1, 2, 3)
"""Bytes from RIP at the #VMEXIT to the RIP that is pushed, for INT3, INTO and INT n of the same vectors."""


class _Stack(NamedTuple):
    data: bytes
    """From SS:RSP up."""
    bits: int
    """The size of the code that uses it."""

    def values(self, end: int) -> set[int]:
        """Return the values below offset `end` that may be return addresses."""
        width = self.bits // 8
        return {int.from_bytes(self.data[at : at + width], "little") for at in range(0, end, width)}


def unreturned(
    records: Sequence[ExceptionRecord], save: SaveArea, memory: GuestMemory, physical_bits: int
) -> list[ExceptionRecord]:
    """Return the records of the exceptions that a stopped guest never came back from, the latest first.

    `records` are the last ones, in their order; `save` and `memory` are the guest's as it is now.
    """
    bits, now = code_bits(save), partial_memory(memory)
    stack = _Stack(read_mapped(save, memory, stack_address(save), _STACK), bits)
    handlers: dict[int, HandlerCode | None] = {}
    found: list[ExceptionRecord] = []
    below, in_task = -1, False
    inner = code_address(save)
    for record in reversed(records):
        event = record.injected
        if event is None:
            continue
        failed = record is not records[-1] and records[-1].vectoring == event  # its task did not begin
        if not (in_task or failed) and task_gate(save, now, event, physical_bits) == save.tr.selector:
            found.append(record)
            in_task = True
            continue
        place = next((place for place in _frames(stack.data, record) if place > below), None)
        if place is None:
            continue
        if event.vector not in handlers:
            handlers[event.vector] = _handler(save, memory, now, event, physical_bits)
        code = handlers[event.vector]
        if code is None:
            continue
        inside = inner in code.instructions or _calls(code, save, stack, place)
        if inside or (record is records[-1] and not code.whole):
            found.append(record)
            below, inner = place, record.linear_rip
    return found


def _calls(code: HandlerCode, save: SaveArea, stack: _Stack, place: int) -> bool:
    """Return whether a value below a place is the return address of one of a handler's calls."""
    start = code_base(save)
    return any(start + value & M32 in code.returns or value in code.returns for value in stack.values(place))


def _frames(stack: bytes, record: ExceptionRecord) -> Iterator[int]:
    """Yield the offsets of the frames in a stack that are an exception's (APM vol. 2, 8.7.3, 8.9.3)."""
    later = _LATER if SOFTWARE_EXCEPTIONS >> record.vector & 1 else _LATER[:1]
    for width in _widths(record):
        if record.rip >> 8 * width:
            continue
        mask = (1 << 8 * width) - 1
        for rip in later:
            pushed = (record.rip + rip & mask).to_bytes(width, "little")
            at = stack.find(pushed)
            while at >= 0:
                if _is_frame(stack[at : at + 5 * width], width, record):
                    yield at
                at = stack.find(pushed, at + 1)


def _widths(record: ExceptionRecord) -> tuple[int, ...]:
    """Return the sizes that a value of the frame may have."""
    mode = mode_of(record.cr0, record.efer, record.rflags)
    return {"long": (8,), "real": (2,)}.get(mode, (4, 2))


def _is_frame(data: bytes, width: int, record: ExceptionRecord) -> bool:
    _, cs, flags, rsp, ss = (int.from_bytes(data[at : at + width], "little") for at in range(0, 5 * width, width))
    kept = M32 & ~RFLAGS.RF & (1 << 8 * width) - 1
    same = cs & 0xFFFF == record.cs and flags & kept == record.rflags & kept
    return same and (width < 8 or (rsp == record.rsp and ss & 0xFFFF == record.ss))


def _handler(
    save: SaveArea, memory: GuestMemory, now: PartialMemory, event: Event, physical_bits: int
) -> HandlerCode | None:
    """Return the code of an event's handler, by the gate as it is now; None: it has no gate."""
    attempt = Attempt(save, now, event, physical_bits)
    if attempt.real:
        entry = (attempt.gate >> 16 & 0xFFFF) * 16 + (attempt.gate & 0xFFFF), 16
    elif (found := attempt.entry(attempt.gate_gva)) is not None:
        entry = found
    else:
        return None
    return handler_code(lambda gva: read_mapped(save, memory, gva, LONGEST), *entry)
