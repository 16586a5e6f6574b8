"""What QEMU's TCG makes of an event, predicted by the model and the departures listed here.

Each departure has a rule that is applied before the model is asked or to its answer, and the place in QEMU's source
that proves it. Whatever else differs is an error.
"""

from typing import NamedTuple

from tests.arch.delivery.states import ARENA, GDT, LDT, PDPT, PHYSICAL_BITS, SIZE, descriptor_at
from trapline.arch import descriptors
from trapline.arch.delivery import Delivered, access, checks, deliver
from trapline.arch.descriptors import SegmentState
from trapline.arch.events import Event, EventType
from trapline.arch.paging import PS, A, P
from trapline.arch.registers import CR4, RFLAGS
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea

DEPARTURES = {
    "accessed": "descriptors keep their accessed bit clear: seg_helper.c, load_segment and cpu_x86_load_seg_cache",
    "breakpoint": "an injected #BP or #OF is no software interrupt: svm_helper.c, helper_vmrun, exception_is_int = 0",
    "error code valid": "EVENTINJ.EV is ignored, the vector decides: svm_helper.c, helper_vmrun (cases obey it)",
    "EXT": "error codes have EXT clear: seg_helper.c, do_interrupt_protected, do_interrupt64",
    "handler limit": "the handler may be behind its segment: seg_helper.c, do_interrupt_protected, do_interrupt_real",
    "handler address": "the handler's address may be any: seg_helper.c, do_interrupt64",
    "huge page": "a 1 GiB page is marked accessed before it is found fit: excp_helper.c, mmu_translate, restart_3_lma",
    "IDT code": "in long mode the error code of a gate is vector * 16 + 2: seg_helper.c, do_interrupt64",
    "IST": "an IST stack alone makes SS null: seg_helper.c, do_interrupt64, new_stack",
    "IRQ RF": "an interrupt's pushed flags have RF set: seg_helper.c, exception_is_fault (interrupts_keep_rf=False)",
    "narrow gate": "a 16-bit gate has 32 bits of offset: seg_helper.c, do_interrupt_protected",
    "PDPT": "the first entry of a PAE walk gets an accessed bit: excp_helper.c, mmu_translate, restart_3_nolma",
    "reserved": "a page fault for a reserved bit has P clear: excp_helper.c, mmu_translate, do_fault_rsvd",
    "RF": "a fault's pushed flags do not have RF set: seg_helper.c, cpu_compute_eflags (sets_rf=False)",
    "SMAP": "AC lets the CPU read its tables in user pages below CPL 3: cpu.h, cpu_mmu_index_kernel",
    "stack address": "a push that is not canonical raises #GP: excp_helper.c, get_physical_address",
    "stack limit": "no limit of a stack is checked: seg_helper.c, PUSHW_RA and PUSHL_RA",
    "stack present": "a stack that is not present raises #TS: seg_helper.c, do_interrupt_protected",
    "task table": "a TSS in the LDT raises #TS: seg_helper.c, switch_tss_ra",
    "user stack": "a handler at CPL 3 has its frame pushed by the supervisor: seg_helper.c, cpu_stq_kernel_ra",
    "virtual-8086": "virtual-8086 mode may be left to ring 1 or 2: seg_helper.c, do_interrupt_protected; not compared",
}


_RESERVED = -1 << PHYSICAL_BITS & (1 << 52) - 1


class Expected(NamedTuple):
    """What is to be seen after VMRUN; None: nothing is compared."""

    delivered: bool
    registers: tuple
    memory: bytes
    exit: tuple[int, int, int] | None
    """Exit code, EXITINFO1 and EXITINFO2 of what follows from a failure."""
    strays: bool
    """Something is stored outside the arena."""


_push_access = access.Delivery._push_access


def push_as_supervisor(patch):
    """Let the model push on a user's stack as older TCGs do."""
    patch.setattr(access.Delivery, "_push_access", lambda self, cpl: _push_access(self, cpl % 3))


def mended(facts, *, pushes_as_user):
    """Return the departures that a QEMU does not have, or that no case compared on it shows."""
    by_fact = {"RF": facts.faults_set_rf, "IRQ RF": facts.interrupts_keep_rf, "IDT code": facts.plain_gate_codes}
    uncompared = {"SMAP", "huge page"}  # the second only a case of compatibility mode shows
    by_pushes = dict.fromkeys({"user stack", *uncompared}, pushes_as_user)
    return {name for name, value in {**by_fact, **by_pushes}.items() if value}


def state_of(segment):
    return SegmentState(segment.selector, segment.attributes | 1, segment.limit, segment.base)


def registers_of(save):
    data = tuple(segment.selector for segment in (save.ds, save.es, save.fs, save.gs))
    return save.rip, save.rsp, save.rflags, save.cpl, state_of(save.cs), state_of(save.ss), data


def without_pdpt_accessed(world, memory):
    """Return the arena as it is compared."""
    if world.paging != "pae":
        return memory
    at = PDPT - ARENA + 8 * (world.linear >> 30)
    return memory[:at] + bytes((memory[at] & ~A,)) + memory[at + 1 :]


def _accessed(data):
    """Set the accessed bit of all descriptors."""
    for table in (GDT - ARENA, LDT - ARENA):
        places = slice(table + 5, table + 0x105, 8)
        data[places] = bytes(value | 1 for value in data[places])


def _unlimited(save, data):
    """Make all segments as large as can be, and none expand down."""
    for segment in (save.cs, save.ss):
        segment.limit = 0xFFFF_FFFF
    if save.ss.attributes & 8 == 0:
        save.ss.attributes &= ~4
    for table in (GDT - ARENA, LDT - ARENA):
        for place in range(table, table + 0x100, 8):
            data[place : place + 2] = b"\xff\xff"
            data[place + 6] |= 0x8F
            if not data[place + 5] & 8:
                data[place + 5] &= ~4


def _original(world, state):
    """Return a segment register loaded from the descriptor as it is."""
    if not state.selector & ~3:
        return state
    return descriptors.load(state.selector, world.get(descriptor_at(state.selector)))


def _as_tcg_takes_it(world, save, memory, seen):
    """Return the event as TCG takes it, and make state and memory so too."""
    _accessed(memory.data)
    if memory.data != world.data:
        seen.add("accessed")
    if save.cr4 & CR4.SMAP and save.rflags & RFLAGS.AC and save.cpl < 3:
        save.cr4 &= ~CR4.SMAP
        seen.add("SMAP")
    event = world.event
    if event.type == EventType.EXCEPTION and event.vector in (Vector.BP, Vector.OF):
        seen.add("breakpoint")
        return Event(event.vector, EventType.INTR)
    return event


def expect(world, seen, facts):
    """Predict the outcome of a case on a QEMU; `seen` collects the departures that mattered."""
    save, memory = SaveArea.from_buffer_copy(world.save), type(world.memory)(bytearray(world.data))
    event = _as_tcg_takes_it(world, save, memory, seen)

    def ask():
        return deliver(
            save,
            event,
            memory,
            physical_bits=PHYSICAL_BITS,
            sets_rf=facts.faults_set_rf,
            interrupts_keep_rf=facts.interrupts_keep_rf,
        )

    outcome, limited, rip = ask(), False, None
    if _check_of(outcome) in (checks.PUSH_LIMIT, checks.HANDLER_LIMIT):
        seen.add("stack limit" if outcome.check is checks.PUSH_LIMIT else "handler limit")
        _unlimited(save, memory.data)
        outcome, limited = ask(), True
    if _check_of(outcome) is checks.HANDLER_ADDRESS:
        seen.add("handler address")
        rip = outcome.details["rip"]
        _low_handler(memory.data, world.gate_at - ARENA)
        outcome = ask()
    after = bytearray(world.data)
    for gpa, stored in outcome.writes:
        if ARENA <= gpa < ARENA + SIZE:
            after[gpa - ARENA : gpa - ARENA + len(stored)] = stored
    strays = any(not ARENA <= gpa < ARENA + SIZE for gpa, _ in outcome.writes)
    seen.update({"PDPT"} if world.paging == "pae" else ())
    if isinstance(outcome, Delivered):
        return Expected(True, _delivered(world, outcome, limited, rip, seen), bytes(after), None, strays)
    _mark_huge_page(world, outcome, after, seen)
    return _failed(world, outcome, bytes(after), strays, seen, plain_gate_codes=facts.plain_gate_codes)


def _check_of(outcome):
    return None if isinstance(outcome, Delivered) else outcome.check


def _low_handler(data, at):
    """Make the entry point in a long-mode gate 0."""
    data[at : at + 2] = bytes(2)
    data[at + 6 : at + 12] = bytes(6)


def _mark_huge_page(world, outcome, after, seen):
    at = PDPT - ARENA + 8 * (world.linear >> 30 & 0x1FF)
    if not world.long or outcome.details.get("level") != 3 or outcome.details["entry"] & _RESERVED:
        return
    if after[at] & (P | PS | A) == P | PS:
        seen.add("huge page")
        after[at] |= A


def _delivered(world, outcome, limited, rip, seen):
    save = world.save
    cs, ss = outcome.cs, outcome.ss
    rip = outcome.rip if rip is None else rip
    if world.mode == "real":
        cs = SegmentState(cs.selector, save.cs.attributes | 1, save.cs.limit, cs.base)
    elif limited:
        cs = _original(world, cs)
        ss = ss and _original(world, ss)
    gate = world.get(world.gate_at)
    if world.long and gate >> 32 & 7 and ss is None:
        seen.add("IST")
        ss = SegmentState(outcome.cpl, outcome.cpl << 5, 0, 0)
    if world.mode not in ("real", "long", "compat") and not gate >> 40 & 8 and gate >> 48:
        seen.add("narrow gate")
        rip = descriptors.gate_offset_32(gate)
    if outcome.cpl == 3:
        seen.add("user stack")
    ss = state_of(save.ss) if ss is None else ss._replace(attributes=ss.attributes | 1)
    data = (0, 0, 0, 0) if outcome.nulled else registers_of(save)[-1]
    return rip, outcome.rsp, outcome.rflags, outcome.cpl, cs, ss, data


def _of_inner_ring(descriptor):
    """Say whether a code segment is of ring 1 or 2, and not conforming."""
    return descriptor >> 45 & 3 in (1, 2) and not descriptor >> 42 & 1


def _failed(world, outcome, after, strays, seen, *, plain_gate_codes):
    check, event = outcome.check, outcome.event
    if event is None:
        return None  # a task switch, which the model refuses: nothing is compared
    if check is checks.CODE_RING_0 and _of_inner_ring(world.get(world.code_at)):
        seen.add("virtual-8086")
        return None
    vector, code = event.vector, event.error_code
    if vector != Vector.PF:
        seen.update({"EXT"} if code & 1 else ())
        code &= ~1
    elif code & 8:
        seen.add("reserved")
        code &= ~1
    if check.code is checks.Code.IDT and world.long and not plain_gate_codes:
        seen.add("IDT code")
        code = world.vector * 16 + 2
    if check is checks.TASK_TABLE:
        seen.add("task table")
        vector = Vector.TS
    if check is checks.STACK_PRESENT:
        seen.add("stack present")
        vector = Vector.TS
    if check is checks.PUSH_ADDRESS:
        seen.add("stack address")
        vector = Vector.GP
    return Expected(False, registers_of(world.save), after, (0x40 + vector, code, outcome.address or 0), strays)
