"""Reads the memory that an explanation takes, while the guest is stopped and has it."""

import logging
from collections.abc import Callable

from .evidence import Evidence
from .explain import Disassembler

log = logging.getLogger(__name__)


def read_now(evidence: Evidence, explain: Callable[[Disassembler], object]) -> None:
    """Let an explanation read from memory and CPUID what it needs; later reads find nothing else."""
    try:
        explain(lambda code, address, bits: None)  # with a disassembler, the code is read as well
    except Exception:  # the guest's run goes on, and who explains it at the end meets the error again
        log.info("the evidence cannot be explained", exc_info=True)
    evidence.memory.detach()
    evidence.cpuid.detach()
