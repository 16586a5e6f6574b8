"""Writes a `Record` of each exception that the hypervisor handled, like those of the processors."""

from collections.abc import Callable
from typing import TypeAlias

from trapline.arch.events import DOUBLE_FAULT, Event, Shutdown, encode
from trapline.machine.record import RECORD_SIZE, RecordFlags, RecordWriter

from .exception import InterceptedException
from .vcpu import Vcpu

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
        (vector, _, code), vectoring, address, synthesized, _ = exit
        if not vcpu.policy.mask >> vector & 1:
            for follower in self._followers:
                follower(vcpu, exit, injected, None)
            return
        if self._writer is None or vcpu is not self._vcpu:
            self._vcpu, self._writer = vcpu, self._writer_of(vcpu)
        flags = RecordFlags.SYNTHESIZED if synthesized else 0
        if code is not None:
            flags |= RecordFlags.HAS_ERROR_CODE
        if address is not None:
            flags |= RecordFlags.HAS_ADDRESS
        word = 0
        if injected is None:
            flags |= RecordFlags.DISCARDED
        elif isinstance(injected, Event):
            word = encode(injected)
            if injected is exit.event:
                flags |= RecordFlags.FORWARDED
            else:
                combined = injected is DOUBLE_FAULT and vectoring is not None
                flags |= RecordFlags.COMBINED if combined else RecordFlags.REPLACED
        else:
            flags |= RecordFlags.SHUTDOWN
        self._writer.write(
            self._bytes,
            0,
            vcpu.processor.tsc,
            vector,
            flags,
            code or 0,
            encode(vectoring) if vectoring is not None else 0,
            address or 0,
            word,
        )
        number = self._sink(self._bytes)
        for follower in self._followers:
            follower(vcpu, exit, injected, number)

    def _writer_of(self, vcpu: Vcpu) -> RecordWriter:
        if vcpu not in self._writers:
            processor = vcpu.processor
            self._writers[vcpu] = RecordWriter(processor.vmcb, processor.gprs, vcpu.number)
        return self._writers[vcpu]
