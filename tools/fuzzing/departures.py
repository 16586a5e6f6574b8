"""Differences between Unicorn and QEMU that are not ours: each with its proof and a rule that recognises it."""

from collections.abc import Callable
from typing import Final, NamedTuple

from trapline.arch.registers import RFLAGS

from . import rules_code, rules_delivery
from .compare import Difference


class Departure(NamedTuple):
    """Something that a processor does otherwise than the manual."""

    name: str
    proof: str
    """The place in the source of QEMU 7.2 or Unicorn 2.1.4 (QEMU 5.0.1), or the section of the manual."""
    matches: Callable[[Difference], bool]
    """Whether a difference between Unicorn (first) and QEMU (second) is this one."""


DEPARTURES: Final = (
    Departure(
        "EXT",
        "QEMU: error codes have EXT clear: seg_helper.c, do_interrupt_protected, do_interrupt64",
        rules_delivery.ext,
    ),
    Departure(
        "IDT code",
        "QEMU: in long mode the code is vector * 16 + 2: seg_helper.c, do_interrupt64",
        rules_delivery.idt_code,
    ),
    Departure(
        "fetch ahead",
        "Unicorn: a block that runs into a page that is not there faults before it begins, with RIP at its start: "
        "translate.c, i386_tr_translate_insn, which stops at the end of a page with CF_USE_ICOUNT only",
        rules_code.fetch_ahead,
    ),
    Departure(
        "INS",
        "Unicorn: INS and OUTS touch memory before their port is looked at: translate.c, gen_ins, gen_outs",
        rules_code.string_input,
    ),
    Departure(
        "reserved",
        "QEMU: the fault of a reserved bit has P clear: excp_helper.c, do_fault_rsvd",
        rules_delivery.reserved,
    ),
    Departure(
        "accessed",
        "QEMU: descriptors keep their accessed bit clear: seg_helper.c, load_segment",
        rules_delivery.accessed,
    ),
    Departure(
        "handler address",
        "QEMU: the handler's address may be any: seg_helper.c, do_interrupt64",
        rules_delivery.handler_address,
    ),
    Departure(
        "stack address",
        "QEMU: a push that is not canonical raises #GP: excp_helper.c, get_physical_address",
        rules_delivery.stack_address,
    ),
    Departure(
        "CR4", "Unicorn: reserved bits of CR4 are dropped: helper.c, cpu_x86_update_cr4 (APM 3.1.3)", rules_code.cr4
    ),
    Departure(
        "PG",
        "QEMU: 64-bit code may switch paging off: helper.c, cpu_x86_update_cr0 (APM 14.7, vol. 3 MOV CRn)",
        rules_code.paging_off,
    ),
    Departure(
        "EFER", "QEMU: bits that EFER lacks are dropped: misc_helper.c, helper_wrmsr (APM 3.1.7)", rules_code.efer
    ),
    Departure(
        "C6 and C7",
        "QEMU: MOV is taken for all of its group: translate.c, case 0xc6 (APM vol. 3, A-6)",
        rules_code.group_11,
    ),
    Departure(
        "F6 and F7",
        "Unicorn, and QEMU 7.2: /1 is undefined, where newer QEMUs have TEST: translate.c, case 0xf6",
        rules_code.group_3,
    ),
    Departure(
        "legacy",
        "QEMU 9.1 to 10.2: 64-bit code may have AAM, AAD, SALC and INTO: decode-new.c.inc, opcodes_root (APM vol. 3, "
        "B.3)",
        rules_code.legacy_only,
    ),
    Departure(
        "RF",
        "Unicorn: a jump leaves RF set: translate.c, i386_tr_init_disas_context, jmp_opt (APM 3.1.6)",
        rules_code.resume,
    ),
    Departure(
        "stack limit",
        "QEMU: no limit of a stack is checked: seg_helper.c, PUSHW_RA and PUSHL_RA",
        rules_delivery.stack_limit,
    ),
    Departure(
        "virtual-8086",
        "QEMU: v86 mode may be left to ring 1 or 2: seg_helper.c, do_interrupt_protected",
        rules_delivery.inner_ring,
    ),
    Departure(
        "narrow gate",
        "QEMU: a 16-bit gate has 32 bits of offset: seg_helper.c, do_interrupt_protected",
        rules_delivery.narrow_gate,
    ),
    Departure(
        "SYSENTER",
        "QEMU: 64-bit code gets D as well as L: seg_helper.c, helper_sysenter (APM vol. 3)",
        rules_code.sysenter,
    ),
    Departure(
        "STI and LSS",
        "QEMU: no single step after STI and LSS, since 7.2.12: translate.c, do_gen_eob_worker (`!inhibit`); the manual "
        "knows that of MOV SS and POP SS only (APM vol. 3 MOV, POP, STI)",
        rules_code.sti,
    ),
    Departure(
        "VEX",
        "Unicorn: executes VEX, without AVX in CPUID or CR4.OSXSAVE: translate.c, disas_insn, case 0xc5",
        rules_code.vex,
    ),
    Departure(
        "MOVMSK",
        "Unicorn: MOVMSKPS and shifts by a constant take memory: translate.c, gen_sse, case 0x050, 0x071",
        rules_code.mask_of_memory,
    ),
    Departure(
        "3DNow",
        "Unicorn: reads the operand before it says that 0F 0F is undefined: translate.c, gen_sse, case 0x0f",
        rules_code.three_d_now,
    ),
    Departure(
        "SMSW",
        "the upper half of a 32-bit register is undefined (APM vol. 3 SMSW): Unicorn, translate.c, smsw",
        rules_code.smsw,
    ),
    Departure("BSWAP", "BSWAP of 16 bits is undefined (APM vol. 3 BSWAP)", rules_code.bswap),
    Departure(
        "ENTER",
        "Unicorn: EBP is as wide as the stack, not as the operand: translate.c, gen_enter (`a_ot`)",
        rules_code.enter,
    ),
    Departure(
        "INS that is refused",
        "Unicorn: INS stores a zero before its port is looked at: translate.c, gen_ins",
        rules_code.string_zero,
    ),
    Departure(
        "PG without PE",
        "both: CR0 takes PG without PE, which is #GP: helper.c, cpu_x86_update_cr0 (APM 3.1.1, vol. 3 MOV CRn)",
        rules_code.real_paging,
    ),
    Departure(
        "IP",
        "Unicorn: IP goes on beyond 64 KiB: translate.c, i386_tr_translate_insn; QEMU: it wraps, gen_jmp_rel",
        rules_code.instruction_pointer,
    ),
    Departure(
        "device", "none of the CPU: IN from a port where only one of the machines has a device", rules_code.device
    ),
    Departure(
        "task switch",
        "both: a fault in the new task has RIP of the old: seg_helper.c, switch_tss_ra; of QEMU its offset in the "
        "page only: tcg-cpu.c, x86_restore_state_to_opc; Unicorn sets the upper half of registers from a 16-bit TSS",
        rules_delivery.task_switch,
    ),
    Departure(
        "stack of real mode",
        "QEMU: the stack is of 16 bits whatever SS says: seg_helper.c, do_interrupt_real",
        rules_delivery.real_stack,
    ),
    Departure(
        "base",
        "both: LIDT and LGDT take a base that is not canonical (APM vol. 3 LIDT); QEMU's VMRUN extends its sign: "
        "svm_helper.c, svm_canonicalization",
        rules_delivery.table_base,
    ),
    Departure(
        "MOVNT",
        "QEMU: MOVNTQ and MOVNTDQ store to registers: decode-new.c.inc, opcodes_0FE7",
        rules_code.store_to_register,
    ),
    Departure(
        "EMMS", "QEMU: EMMS checks neither CR0.EM nor TS: emit.c.inc, gen_EMMS (APM vol. 5 EMMS)", rules_code.emms
    ),
    Departure(
        "LOCK",
        "Unicorn, and QEMU 7.2 but with x87 and SSE: LOCK with most instructions is nothing: translate.c, disas_insn "
        "(APM vol. 3, 1.2.5)",
        rules_code.lock,
    ),
    Departure(
        "LOOPE",
        "Unicorn: flags are lost where the count ends a LOOPE: translate.c, case 0xe0 (gen_jcc1 notes on the other way "
        "only how they are to be computed)",
        rules_code.loop,
    ),
    Departure(
        "handler limit",
        "QEMU: a handler may lie beyond the limit of its segment: seg_helper.c, do_interrupt_protected (APM 8.7)",
        rules_delivery.handler_limit,
    ),
    Departure(
        "PDPT", "QEMU: a PAE walk marks its first entry accessed: excp_helper.c, mmu_translate", rules_delivery.pdpt
    ),
    Departure(
        "REX",
        "QEMU: REX counts although another prefix follows it: translate.c, disas_insn (APM vol. 3, 1.2.7)",
        rules_code.early_rex,
    ),
)


def departure(difference: Difference) -> str | None:
    """Return the name of a known departure, or None.

    Two of them meet with others often: PDPT, and RF in a record.
    """
    fields = difference.fields
    if difference.record is None:
        marked = rules_delivery.roots(difference)
        rest = {name: values for name, values in fields.items() if name not in marked}
        difference = difference._replace(fields=rest or fields)
    elif "rflags" in fields and len(fields) > 1 and fields["rflags"][0] == fields["rflags"][1] | RFLAGS.RF:
        difference = difference._replace(fields={name: fields[name] for name in fields if name != "rflags"})
    return next((row.name for row in DEPARTURES if row.matches(difference)), None)
