"""Writes a `Record` of each exception that the hypervisor handled, like those of the processors."""

from collections.abc import Callable
from typing import Final, TypeAlias

from trapline.arch.events import DOUBLE_FAULT, Event, Shutdown, encode
from trapline.machine.record import RECORD_SIZE, RecordFlags, RecordWriter

from .exception import InterceptedException
from .vcpu import Vcpu

_HAS_ERROR_CODE: Final = RecordFlags.HAS_ERROR_CODE
_HAS_ADDRESS: Final = RecordFlags.HAS_ADDRESS
_FORWARDED: Final = RecordFlags.FORWARDED
"""Bound once: looking them up takes as long as using them."""

Follower: TypeAlias = Callable[[Vcpu, InterceptedException, Event | Shutdown | None, int | None], None]
"""Called like a recorder, with the number of the record as well; None: the exception was not recorded."""


class Recording:
    """A recorder for `Vm.recorders`: writes one record for each exception and gives it to a sink."""

    def __init__(self, sink: Callable[[memoryview], int | None], followers: tuple[Follower, ...] = ()) -> None:
        """`sink` stores a record and returns its number, if it counts them; `followers` are called after it."""
        self._sink = sink
        self._followers = followers
        self._bytes = memoryview(bytearray(RECORD_SIZE))
        self._vcpu: Vcpu | None = None
        self._writer: RecordWriter | None = None
        self._writers: dict[Vcpu, RecordWriter] = {}

    def __call__(self, vcpu: Vcpu, exit: InterceptedException, injected: Event | Shutdown | None) -> None:
        """Record an exception and its outcome. Vectors that are not forced are not recorded."""
        event, vectoring, address, synthesized, _ = exit
        vector, _, code = event
        if not vcpu.policy.mask >> vector & 1:
            for follower in self._followers:
                follower(vcpu, exit, injected, None)
            return
        writer = self._writer
        if writer is None or vcpu is not self._vcpu:
            self._vcpu = vcpu
            writer = self._writer = self._writer_of(vcpu)
        if injected is event:
            flags, word = _FORWARDED, encode(event)
        else:
            flags, word = _outcome(injected, vectoring)
        if code is None:
            code = 0
        else:
            flags |= _HAS_ERROR_CODE
        if address is None:
            address = 0
        else:
            flags |= _HAS_ADDRESS
        if synthesized:
            flags |= RecordFlags.SYNTHESIZED
        under_way = 0 if vectoring is None else encode(vectoring)
        writer.write(self._bytes, 0, vcpu.processor.tsc, vector, flags, code, under_way, address, word)
        number = self._sink(self._bytes)
        for follower in self._followers:
            follower(vcpu, exit, injected, number)

    def _writer_of(self, vcpu: Vcpu) -> RecordWriter:
        if vcpu not in self._writers:
            processor = vcpu.processor
            self._writers[vcpu] = RecordWriter(processor.vmcb, processor.gprs, vcpu.number)
        return self._writers[vcpu]


def _outcome(injected: Event | Shutdown | None, vectoring: Event | None) -> tuple[int, int]:
    """Return the flag and the event word of an exception that the guest does not get as it was raised."""
    if injected is None:
        return RecordFlags.DISCARDED, 0
    if not isinstance(injected, Event):
        return RecordFlags.SHUTDOWN, 0
    combined = injected is DOUBLE_FAULT and vectoring is not None
    return RecordFlags.COMBINED if combined else RecordFlags.REPLACED, encode(injected)
