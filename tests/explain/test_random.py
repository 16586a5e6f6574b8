"""Randomly broken states and guests: what is named is never wrong."""

import random
import re
import time

import pytest

from tests.arch.delivery.states import ARENA, MODES, PHYSICAL_BITS, SIZE, Memory, make
from tests.explain.broken import GDT, all_gates, kernel, undefined, user_undefined
from trapline.arch.delivery import Delivered, Failed, deliver
from trapline.arch.events import combine
from trapline.arch.paging import FETCH
from trapline.arch.registers import Gprs
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.arch.vmcb import SaveArea
from trapline.asm import operands
from trapline.asm.operands import RAX, Mem
from trapline.explain.attempt import Attempt
from trapline.explain.blackbox import BlackBox
from trapline.explain.evidence import Evidence
from trapline.explain.explain import explain
from trapline.explain.instruction import Instruction
from trapline.explain.memory import PartialMemory, partial_memory
from trapline.explain.paging import cause_of_fetch
from trapline.explain.state import remarks
from trapline.guests.boot import bare_entry
from trapline.guests.recognise import recognise
from trapline.guests.samples import places
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vm import Vm
from trapline.processors.unicorn.processor import UnicornProcessor
from trapline.trace.recorder import Recorder

CASES = 200
GUESTS = 200
RAM = 16 << 20

# Without any mutation a program may call a gate of lower DPL, have a supervisor stack in user mode, and so on.
ALWAYS = ("may not call", "does not point to a stack", "a push there fails")
PAGE = ("not mapped", "reserved bits", "R/W=0", "SMAP", "U/S=0", "a supervisor page", "overflowed")
CODE = ("the selector 0x", "the GDT has changed", "beyond the limit of its code segment")
STACK = (r"SS\d in the TSS", r"E?SP\d in the TSS", "the stack pointer is")
PLANTED = {
    "idt_limit": (r"IDTR.limit is", "no IDT is loaded"),
    "own_stack_limit": ("the stack pointer is",),
    "own_stack_small": ("the stack pointer is",),
    "gate_type": (r"IDT entry \d+ .* is (a|an|empty)", r"handler in IDT entry \d+", *CODE, *STACK),
    "gate_absent": ("is not present: its P bit is clear",),
    "gate_dpl": (),
    "gate_selector": (*CODE, *STACK, r"handler in IDT entry \d+"),
    "gdt_limit": (*CODE, *STACK),
    "ldt_limit": (*CODE, *STACK),
    "code_type": CODE,
    "code_dpl": (*CODE, *STACK),
    "code_absent": CODE,
    "code_l_d": CODE,
    "code_not_accessed": CODE,
    "code_limit": (*CODE, "handler in IDT entry"),
    "tss_limit": ("the TSS limit is",),
    "tss_rsp": (*STACK, r"(RSP|IST)\d in the TSS"),
    "own_rsp": ("RSP is", "overflowed"),
    "handler_address": ("handler in IDT entry",),
    "table_base": (*CODE, "the IDT is at", "needs the descriptor", "the TSS is at", *STACK, r"(RSP|IST)\d in the TSS"),
    **dict.fromkeys(("tss_selector", "tss_bad_selector", "stack_type", "stack_dpl", "stack_absent"), STACK),
    **dict.fromkeys(("stack_not_accessed", "stack_limit"), STACK),
}


def is_planted(mutation, cause):
    """Say whether a cause can come of a mutation: those that have no row are about pages."""
    return any(re.search(pattern, cause) for pattern in (*PLANTED.get(mutation, PAGE), *ALWAYS))


def evidence_of(world, failed):
    return Evidence(
        world.save,
        Gprs(),
        None if failed is None else failed.event,
        world.event,
        None if failed is None else failed.address,
        0x1234 if world.event.vector == Vector.PF else None,
        world.event if failed is None else combine(world.event, failed.event),
        PHYSICAL_BITS,
        PartialMemory(source=world.memory.u64),
    )


class Overlaid(Memory):
    """The arena and what surrounds it, with bytes stored over it."""

    def __init__(self, data, stores):
        super().__init__(bytes(data))
        self._stores = dict(stores)

    def _bytes(self, gpa, size):
        return bytes(self._stores.get(at, byte) for at, byte in enumerate(super()._bytes(gpa, size), gpa))


def stores_of(changes):
    return {at: byte for change in changes for gpa, data in change.stores for at, byte in enumerate(data, gpa)}


def changed(save, changes):
    """Return a save area with the registers of the changes."""
    save = SaveArea.from_buffer_copy(save)
    for change in changes:
        for path, value in change.registers.items():
            *outer, name = path.split(".")
            area = getattr(save, outer[0]) if outer else save
            setattr(area, name, value)
    return save


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_what_is_named_repairs_a_broken_state(mode):
    named = failures = 0
    for number in range(CASES):
        seed = f"explain {mode} {number}"
        world = make(mode, random.Random(seed))
        failed = deliver(world.save, world.event, world.memory, physical_bits=PHYSICAL_BITS)
        if not isinstance(failed, Failed) or failed.event is None:
            continue
        failures += 1
        explanation = explain([evidence_of(world, failed)])
        assert explanation.deliveries[0].failure, seed
        assert (explanation.unproven is None) == bool(explanation.causes), seed
        if not explanation.causes:
            continue
        named += 1
        save = changed(world.save, explanation.changes)
        memory = Overlaid(world.data, stores_of(explanation.changes))
        after = deliver(save, world.event, memory, physical_bits=PHYSICAL_BITS)
        assert isinstance(after, Delivered), f"{seed}: {world.mutations} {explanation}"
        if len(world.mutations) == 1:
            told = any(is_planted(world.mutations[0], cause) for cause in explanation.causes)
            assert told, f"{seed}: {world.mutations} {explanation.causes}"
        for change in explanation.changes if len(explanation.changes) > 1 else ():
            alone = deliver(
                changed(world.save, [change]), world.event, Overlaid(world.data, stores_of([change])),
                physical_bits=PHYSICAL_BITS,
            )  # fmt: skip
            assert isinstance(alone, Failed), f"{seed}: one of two causes is enough: {explanation}"
    assert named > failures / 3 > 10
    assert ARENA + SIZE < RAM


@pytest.mark.parametrize("mode", MODES)
def test_a_state_that_works_is_not_accused(mode):
    delivered = 0
    for number in range(CASES):
        seed = f"works {mode} {number}"
        world = make(mode, random.Random(seed))
        if not isinstance(deliver(world.save, world.event, world.memory, physical_bits=PHYSICAL_BITS), Delivered):
            continue
        delivered += 1
        evidence = evidence_of(world, None)
        attempt = Attempt.of(evidence, world.event)
        assert cause_of_fetch(attempt) is None, seed
        # In real mode the stack may be anywhere in a segment that begins with the vectors.
        accused = [remark for remark in remarks(Instruction(attempt, evidence)) if "vector table (IVT)" not in remark]
        assert not accused or attempt.read(attempt.rip, 16) == 0, f"{seed}: {world.mutations} {accused}"
    assert delivered > CASES / 4


TABLES = {
    "gate of #UD": (places.IDT + 16 * Vector.UD, 12),
    "gate of #DF": (places.IDT + 16 * Vector.DF, 12),
    "gate of #PF": (places.IDT + 16 * Vector.PF, 12),
    "code": (GDT + places.CODE_SELECTOR, 8),
    "TSS": (places.TSS + 4, 8),
    "PML4": (places.PML4, 8),
    "PDPT": (places.PDPT, 8),
    "directory": (places.DIRECTORY, 8),
    **{
        f"page {gpa:#x}": (places.PAGES + gpa // 0x1000 * 8, 8)
        for gpa in (places.CODE, places.TABLES, places.IDT, places.STACK - 0x1000)
    },
}


def guest_of(rng):
    """Return a guest that changes bits of its own tables and then executes UD2, and what it changes."""
    changes = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(tuple(TABLES))
        start, size = TABLES[name]
        changes.append((name, start + rng.randrange(size), 1 << rng.randrange(8)))

    def prepare(made):
        for _, gpa, bits in changes:
            made.code.xor(Mem(None, gpa, size=8), bits)
        made.code.mov(RAX, operands.CR3)
        made.code.mov(operands.CR3, RAX)

    raises = rng.choice((undefined, user_undefined))
    limit = None if rng.random() < 0.8 else rng.randrange(0x200)
    return kernel(raises=raises, prepare=prepare, gates=all_gates("finish"), idt_limit=limit)(), changes, limit


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_what_is_named_repairs_a_broken_guest(tmp_path, part):
    """Bits of the tables of real guests change; the proof is repeated on the memory of the stopped guest."""
    path = tmp_path / "image"
    named = shutdowns = 0
    for number in range(part * GUESTS // 4, (part + 1) * GUESTS // 4):
        seed = f"guest {number}"
        image, *planted = guest_of(random.Random(seed))
        path.write_bytes(image)
        boot = bare_entry(recognise(path), memory=RAM)
        with UnicornProcessor(boot, RAM, output=lambda data: None) as processor:
            recorder = Recorder()
            processor.on_records(recorder.add)
            box = BlackBox()
            vm = Vm(processor, mask=FORCEABLE, enter=boot.enter, recorders=(Recording(recorder.add, (box,)),))
            stop = vm.run(time.monotonic() + 0.5)
            if stop.reason is not StopReason.SHUTDOWN:
                continue
            shutdowns += 1
            explanation = box.explanation()
            assert (explanation.unproven is None) == bool(explanation.causes), f"{seed}: {planted} {explanation}"
            if not explanation.causes:
                continue
            named += 1
            for change in explanation.changes:
                for gpa, data in change.stores:
                    processor.memory.write(gpa, data)
            save = changed(processor.vmcb.save, explanation.changes)
            event = box.chain()[0].vectoring
            attempt = Attempt(save, partial_memory(processor.memory), event, processor.capabilities.physical_bits)
            if explanation.effect.endswith("could have been fetched"):
                assert attempt.translate(attempt.rip, FETCH) is not None, f"{seed}: {planted} {explanation}"
            else:
                assert isinstance(attempt.deliver(), Delivered), f"{seed}: {planted} {explanation}"
    assert named > shutdowns / 2 > 5
