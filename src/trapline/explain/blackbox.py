"""The black box: takes the evidence while the guest is stopped, wherever an exception spoils another's delivery.

Plain exceptions cost nothing: what a processor forwards by itself never comes here, and the rest is looked at for one
condition.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from trapline.arch.delivery import chain as deliveries
from trapline.arch.events import SHUTDOWN, Event, Shutdown, decode
from trapline.arch.registers import Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea
from trapline.machine.record import RECORD_SIZE, Record, RecordFlags

from .attempt import Attempt
from .evidence import Evidence
from .instruction import code_bytes, stack_top
from .memory import partial_memory

if TYPE_CHECKING:
    from trapline.hypervisor.exception import ExceptionExit
    from trapline.hypervisor.vcpu import Vcpu

    from .explanation import Disassembler, Explanation, Namer

log = logging.getLogger(__name__)

KEPT: Final = 64
"""How many pieces of evidence are kept, and how many are looked at with all that could be wrong in mind."""


class BlackBox:
    """Sees each exception that the hypervisor decided on, behind the recorder."""

    def __init__(
        self,
        *,
        last: Callable[[], bytes] | None = None,
        recorded: Callable[[], int] | None = None,
        sink: Callable[[str], None] | None = None,
    ) -> None:
        """`last` returns the last records, newest last, `recorded` how many there were; `sink` gets lines of JSON."""
        self._last, self._recorded, self._sink = last, recorded, sink
        self.evidence: deque[Evidence] = deque(maxlen=KEPT)
        self._looks = [0, 0]
        """How often something was looked at that was not fatal, and that was."""

    def __call__(self, vcpu: "Vcpu", exit: "ExceptionExit", injected: Event | Shutdown | None) -> None:
        """Keep the evidence of an exception that was raised while another event was delivered."""
        if exit.vectoring is None and injected is not SHUTDOWN:
            return
        forced = vcpu.policy.mask >> exit.event.vector & 1
        self._keep(vcpu, exit.event, exit.vectoring, exit.address, injected, recorded=bool(forced))

    def shut_down(self, vcpu: "Vcpu") -> None:
        """Keep the evidence of a shutdown, unless its last exception has left some."""
        if not self.evidence or self.evidence[-1].becomes is not SHUTDOWN:
            vectoring = decode(vcpu.processor.vmcb.control.exit_int_info)
            self._keep(vcpu, None, vectoring, None, SHUTDOWN, recorded=False)

    def chain(self) -> list[Evidence]:
        """Return the chain that the newest evidence is of."""
        return chains(self.evidence)[-1] if self.evidence else []

    def explanation(
        self, *, name: "Namer | None" = None, disassemble: "Disassembler | None" = None
    ) -> "Explanation | None":
        """Explain that chain; None: there is no evidence."""
        from .explanation import explain

        chain = self.chain()
        return explain(chain, name=name, disassemble=disassemble) if chain else None

    def _keep(
        self,
        vcpu: "Vcpu",
        event: Event | None,
        vectoring: Event | None,
        address: int | None,
        becomes: Event | Shutdown | None,
        *,
        recorded: bool,
    ) -> None:
        processor = vcpu.processor
        save = SaveArea.from_buffer_copy(processor.vmcb.save)
        evidence = Evidence(
            save,
            Gprs.from_buffer_copy(processor.gprs),
            event,
            vectoring,
            address,
            self._first_address(save, event, vectoring, recorded=recorded),
            becomes,
            processor.capabilities.physical_bits,
            partial_memory(processor.memory),
            self._recorded() - 1 if recorded and self._recorded is not None else None,
        )
        self._look(evidence)
        evidence.memory.detach()
        self.evidence.append(evidence)
        if self._sink is not None:
            self._sink(evidence.to_json())

    def _look(self, evidence: Evidence) -> None:
        """Read the code, the stack, and all memory that an explanation of the chain so far needs."""
        event = evidence.vectoring or evidence.event
        if event is not None:
            attempt = Attempt.of(evidence, event)
            code_bytes(attempt)
            stack_top(attempt)
        self._looks[evidence.fatal] += 1
        if evidence.becomes is SHUTDOWN or self._looks[evidence.fatal] <= KEPT:
            from .explanation import explain  # most guests never need it

            try:
                # Its code is read for whoever will show the instruction.
                explain(chains([*self.evidence, evidence])[-1], disassemble=lambda code, address, bits: None)
            except Exception:
                log.exception("the evidence cannot be explained")  # the guest's run goes on
        elif evidence.vectoring is not None:  # a guest that goes on as if nothing had happened is not to be slow
            deliveries(evidence.save, evidence.vectoring, evidence.memory, physical_bits=evidence.physical_bits)

    def _first_address(
        self, save: SaveArea, event: Event | None, vectoring: Event | None, *, recorded: bool
    ) -> int | None:
        """Return the address of the page fault under delivery; CR2 has it until another page fault is raised."""
        if vectoring is None or vectoring.vector != Vector.PF:
            return None
        if event is None or event.vector != Vector.PF:
            return save.cr2
        records = self._last() if self._last is not None else b""
        at = len(records) - RECORD_SIZE * (2 if recorded else 1)
        if at < 0:
            return None
        record = Record.from_buffer_copy(records, at)
        same = record.vector == Vector.PF and record.rip == save.rip and record.rsp == save.rsp
        return record.address if same and record.flags & RecordFlags.HAS_ADDRESS else None


def chains(evidence: Iterable[Evidence]) -> list[list[Evidence]]:
    """Group evidence by the event whose delivery failed first, oldest first."""
    found: list[list[Evidence]] = []
    for piece in evidence:
        if found and _continues(found[-1][-1], piece):
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


def _continues(before: Evidence, piece: Evidence) -> bool:
    same = all(getattr(before.save, name) == getattr(piece.save, name) for name in ("rip", "rsp", "cr3", "rflags"))
    if not same or not isinstance(before.becomes, Event) or piece.vectoring is None:
        return False
    return before.becomes[:2] == piece.vectoring[:2]  # real mode has no error codes
