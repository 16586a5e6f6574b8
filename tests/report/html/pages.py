"""A page whose every text is hostile."""

import numpy as np
import pyarrow as pa

from tests.explain.machines import GATE, IDT, Machine, fault, page_fault
from trapline.arch.descriptors import GATE_PRESENT
from trapline.arch.events import SHUTDOWN
from trapline.arch.vectors import Vector
from trapline.explain.explain import explain, explain_exception
from trapline.explain.pictures import draw
from trapline.report.html import Explained, Fact, Page, Section, page
from trapline.trace.overview import overview

HOSTILE = "</script><img src=https://example.org/ onerror=pwned()>&amp;\u202e\x1b"
RECORDS, RARE = 5000, (1000, 4000)
"""How many records there are, and which of them are #UD; every tenth other one is #GP."""


def records():
    """Return the records, in three batches."""
    numbers = np.arange(RECORDS, dtype=np.uint64)
    vector = np.where(numbers % 10, 14, 13).astype(np.uint8)
    vector[list(RARE)] = 6
    rip = np.uint64(0xFFFF_FFFF_8100_0000) + numbers % 5 * np.uint64(16)
    names = pa.DictionaryArray.from_arrays(np.where(numbers % 50, 0, 1).astype(np.int32), pa.array(["memset", HOSTILE]))
    columns = {
        "seq": numbers,
        "tsc": numbers * 1000 + 5,
        "vector": vector,
        "error_code": pa.array(numbers % 8, mask=vector == 6),
        "address": pa.array(numbers * 4096, mask=vector != 14),
        "cpl": (numbers % 4 // 3 * 3).astype(np.uint8),
        "linear_rip": rip,
        "cr3": np.full(RECORDS, 0x1000, np.uint64),
        "vcpu": np.zeros(RECORDS, np.uint32),
        "mode": pa.array(["long"] * RECORDS).dictionary_encode(),
        "symbol": names,
        "symbol_offset": numbers % 50,
        "source": pa.array([HOSTILE] * RECORDS).dictionary_encode(),
    }
    table = pa.table(columns)
    return table.to_batches(max_chunksize=2000)


def name(_):
    return HOSTILE


def explained():
    """Return a triple fault, and a page fault that was delivered."""
    machine = Machine(rsp=3 << 30)
    machine.put(IDT + 16 * Vector.UD, GATE & ~GATE_PRESENT)
    chain = [machine.evidence(fault(Vector.UD), becomes=SHUTDOWN)]
    alone = machine.evidence(None, page_fault(2), address=3 << 39, becomes=page_fault(2))
    alone = alone._replace(at_end=True)
    return (
        Explained(HOSTILE, explain(chain, name=name), draw(chain, name=name)),
        Explained("a page fault", explain_exception(alone, name=name), draw([alone], chained=False, name=name)),
    )


def last():
    """Return the last records as rows."""
    (batch,) = pa.Table.from_batches(records()).slice(RECORDS - 2).combine_chunks().to_batches()
    general = {"rip": 0x1000, "cs": 0x33, "rflags": 0x10246, "cr0": 0x8005_0033, "efer": 0xD01, "rax": 1}
    return [{**row, **general, "outcome": "combined"} for row in batch.to_pylist()]


def hostile_page(tsc_frequency=None):
    """Return the page."""
    return page(
        Page(
            title=HOSTILE,
            ending=HOSTILE,
            failed=True,
            facts=[Fact(HOSTILE, HOSTILE)],
            overview=overview(records()),
            tsc_frequency=tsc_frequency,
            explained=explained(),
            last=last(),
            sections=[Section("difference", HOSTILE, [HOSTILE])],
        )
    )
