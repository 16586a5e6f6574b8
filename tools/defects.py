"""Known defects: texts of the source, and what is written in their place."""

from dataclasses import dataclass
from typing import Final

_QEMU: Final = "src/trapline/processors/qemu"
_TCG, _MONITOR, _PLANS, _STOPS, _DELIVERIES, _RING, _BIOS = (
    f"{_QEMU}/{name}.py" for name in ("quirks_tcg", "monitor/monitor", "plans", "stops", "deliveries", "ring", "bios")
)
_SOFT, _GUEST_CODE = f"{_QEMU}/software_interrupts.py", f"{_QEMU}/monitor/guest_code.py"
_EMULATION: Final = "src/trapline/arch/emulation.py"
_HYPERVISOR: Final = "src/trapline/hypervisor"
_DELIVERY, _HANDLERS, _INTERCEPTS, _LOOP = (
    f"{_HYPERVISOR}/{name}.py" for name in ("delivery", "handlers", "intercepts", "loop")
)
_TRACE: Final = "src/trapline/trace"
_CLOSURES, _ARRAYS, _TREE, _EXCEPTIONS, _STORE, _TALLY, _RECORDER, _RULES, _JSONL, _QEMU_LOG = (
    f"{_TRACE}/{name}.py"
    for name in (
        "condition/closures", "condition/arrays", "condition/tree", "exceptions", "store", "tally", "recorder", "rules",
        "jsonl", "qemu_log",
    )
)  # fmt: skip
_UNICORN: Final = "src/trapline/processors/unicorn"
_UNICORN_TESTS: Final = "tests/processors/unicorn"
_ARCH: Final = "src/trapline/arch"
_EXPLAIN: Final = "src/trapline/explain"
_GUESTS: Final = "src/trapline/guests"
_SESSION: Final = "src/trapline/session"
_BOOT_TESTS: Final = ("tests/guests/test_boot.py",)
_RECOGNISE_TESTS: Final = ("tests/guests/test_recognise.py",)
_MACHINE_TESTS: Final = ("tests/session/test_machine.py", "-m", "not qemu")
_STEP_TESTS: Final = ("tests/hypervisor/test_step.py",)
_GDB: Final = "src/trapline/debugger/gdb"
_STUB_TESTS: Final = ("tests/debugger/gdb/test_stub.py",)
_NO_DEBUGGER: Final = "its guests run without a debugger"
_NO_GUEST: Final = "its guests depend neither on the model of delivery nor on explanations"


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: `new` replaces `old`. A letter distinguishes the paths that can have it."""

    number: str
    name: str
    file: str
    old: str
    new: str
    no_guest_can_tell: str = ""
    """Why a whole guest sees nothing of it."""
    tests: tuple[str, ...] = ()
    """Arguments of pytest: tests that should notice it, and run before all others."""


_AFTER: Final = "a guest sees nothing of what reads its records"
_LOADING: Final = "the guests of the matrix are raw code and disks that QEMU loads"
_WATCHING: Final = "the matrix compares guests whose exceptions are all forwarded"
_STOPPING: Final = "the guests of the matrix run without breakpoints and watchpoints"

DEFECTS: Final = (
    Defect("1a", "no #DF combining", _DELIVERY, "    if result is SHUTDOWN:",
           "    if result is not SHUTDOWN:\n        result = queued\n    else:"),
    Defect("1b", "no #DF combining", _TCG, "        if result is SHUTDOWN:",
           "        if result is not SHUTDOWN:\n            result = Event(vector, EventType.EXCEPTION, code)\n"
           "        else:"),
    Defect("2a", "no triple fault", _DELIVERY, "        return Stop(StopReason.SHUTDOWN)", "        result = queued"),
    Defect("2b", "no triple fault", _TCG, "            control.exit_code = ExitCode.SHUTDOWN\n            return True",
           "            result = Event(vector, EventType.EXCEPTION, code)"),
    Defect("3a", "no INT rewind", _SOFT, "control.nrip, save.rip = save.rip, injected[0]", "control.nrip = save.rip"),
    Defect("3b", "no INT rewind", _GUEST_CODE, 'code.mov(mailbox("soft_rip"), RCX)', "pass"),
    Defect("4", "no #DB after an emulated instruction", _EMULATION, "if not flags & RFLAGS.TF:", "if True:"),
    Defect("5", "EFER.SVME visible", _HANDLERS, "save.efer & ~EFER.SVME,", "save.efer,"),
    Defect("6", "SVM instruction skipped instead of #UD", _HANDLERS, "    return raise_exception(vcpu, Vector.UD)",
           "    vcpu.processor.vmcb.save.rip += 3\n    return Resume.DONE"),
    Defect("7a", "CR2 not set", _DELIVERY, "vcpu.save.cr2 = exit.address", "pass"),
    Defect("7b", "CR2 not set", _TCG, "self._vmcb.save.cr2 = control.exit_info_2", "pass"),
    Defect("7c", "CR2 not set", _MONITOR, 'code.mov(vmcb("save.cr2"), RDX)', "pass"),
    Defect("8a", "error code lost", _DELIVERY, "return exit_info_1 & 0xFFFF_FFFF", "return 0"),
    Defect("8b", "error code lost", _TCG, "code = control.exit_info_1 & 0xFFFF_FFFF if", "code = 0 if"),
    Defect("8c", "error code lost", _MONITOR,
           'code.mov(Mem(RAX, offset_of(Vmcb, "control.event_inj") + 4), EDX)', "pass"),
    Defect("9", "HSAVE_PA not trapped", _INTERCEPTS, "(msr.EFER, msr.VM_HSAVE_PA, msr.VM_CR)", "(msr.EFER, msr.VM_CR)"),
    Defect("10a", "CPL-3 #GP not turned into #UD", _TCG, "candidate = vectoring is None and",
           "candidate = vectoring is None and self._vmcb.save.cpl != 3 and"),
    Defect("10b", "CPL-3 #GP not turned into #UD", _TCG, "real = self._wanted | 1 << Vector.GP", "real = self._wanted"),
    Defect("10c", "CPL-3 #GP not turned into #UD", _GUEST_CODE, 'code.jae("guest\'s")',
           'code.jmp("guest\'s")'),
    Defect("11a", "INT n injected as type 3 (no DPL check)", _SOFT, "encode(Event(event.vector, EventType.SOFT))",
           "encode(Event(event.vector, EventType.EXCEPTION))"),
    Defect("11b", "INT n injected as type 3 (no DPL check)", _GUEST_CODE, "VALID | EventType.SOFT << 8",
           "VALID | EventType.EXCEPTION << 8"),
    Defect("12a", "an interrupt counted as contributory", "src/trapline/arch/events.py",
           "vectoring.type != EventType.EXCEPTION or queued.type != EventType.EXCEPTION:\n        return queued\n",
           "queued.type != EventType.EXCEPTION:\n        return queued\n    if vectoring.type == EventType.INTR:\n"
           "        vectoring = Event(Vector.GP, EventType.EXCEPTION, 0)\n"),
    Defect("12b", "an interrupt counted as contributory", _TCG,
           "return vector == Vector.DF or bool(seen >> vector & 1)", "return False"),
    Defect("13a", "a vectoring exit swallowed", _LOOP, "        requeue(vcpu, vcpu.vectoring)",
           "        pass",
           "during a delivery TCG leaves by exceptions only, and those owe it nothing unless they are discarded"),
    Defect("13b", "a vectoring exit swallowed", _TCG, "            self._vmcb.control.event_inj = encode(event)",
           "            self._vmcb.control.event_inj = 0"),
    Defect("13c", "a vectoring exit swallowed", _MONITOR,
           '    code.test(vmcb("control.exit_int_info", 32), VALID)\n    code.jne("slow")\n', ""),
    Defect("14", "BIOS copied again on reset", _BIOS, "        mailbox.token = 0\n", ""),
    Defect("15", "EFER write dropping SCE/NXE", _HANDLERS, "value & ~EFER.LMA |",
           "value & ~(EFER.LMA | EFER.SCE | EFER.NXE) |", "TCG keeps SVME by itself, so that no write exits"),
    Defect("16", "DR6 clobbered", _EMULATION, "save.dr6 |= DR6.BS", "save.dr6 = DR6.BS"),
    Defect("17a", "RF left after an emulated instruction", _EMULATION, "= flags & ~RFLAGS.RF", "= flags"),
    Defect("17b", "RF left after an emulated instruction", f"{_QEMU}/monitor/guarded_ports.py",
           "0xFFFF_FFFF & ~RFLAGS.RF", "0xFFFF_FFFF"),
    Defect("17d", "RF set where TCG sets none", _DELIVERY, "capabilities.forwards_set_rf", "capabilities"),
    Defect("17e", "RF set where TCG sets none", _PLANS, "RFLAGS.RF if sets_rf and",
           "RFLAGS.RF if"),
    Defect("18", "fast path: arming forgotten", _MONITOR,
           'code.or_(vmcb("control.intercept_exceptions"), EDX)', "pass"),
    Defect("19a", "record lost when the ring wraps", _RING, "self._tail += good", "self._tail = head"),
    Defect("19b", "record lost when the ring wraps", _MONITOR, "code.and_(EBX, layout.RING_RECORDS - 1)",
           "code.and_(EBX, layout.RING_RECORDS // 2 - 1)"),
    Defect("20", "back-pressure removed", _MONITOR, "cmp(EDX, layout.RING_RECORDS)", "cmp(EDX, 0x7FFF_FFFF)"),
    Defect("21", "PG not repaired", _MONITOR, "code.or_(ECX, CR0.PG)", "pass"),
    Defect("22", "PAM opened again on reset", _BIOS, "open_shadow = int(firmware.uefi)", "open_shadow = 1"),
    Defect("23a", "a missing value compared as 0", _CLOSURES,
           "(one := left(exception)) is not None and compare(one, constant)",
           "compare(left(exception) or 0, constant)", _AFTER),
    Defect("23b", "a missing value compared as 0", _ARRAYS, "return result if present is None else result & present",
           "return result", _AFTER),
    Defect("24", "arithmetic of a condition without a bound", _TREE, "left + right & WORD", "left + right", _AFTER),
    Defect("25", "exceptions numbered from 0 in every slice", _EXCEPTIONS, "        found._numbers = numbers\n", "",
           _AFTER),
    Defect("26", "stored records out of order", _STORE, "parts.appendleft(", "parts.append(", _AFTER),
    Defect("27", "the last place counted as the first", _TALLY, "self._first.setdefault(vector, record)",
           "self._first[vector] = record", _AFTER),
    Defect("28", "a Ctrl-C lost while records are written", _RECORDER, "signal.raise_signal(signal.SIGINT)", "pass",
           _AFTER),
    Defect("29", "CPL 1 and 2 taken for user code", _RULES, "(record.cpl == _USER_CPL)", "(record.cpl != 0)", _AFTER),
    Defect("30", "an address printed that is not there", _JSONL, "if flags & RecordFlags.HAS_ADDRESS else",
           "if address else", _AFTER),
    Defect("31", "a triple fault in QEMU's log read as a #DF", _QEMU_LOG, "if old == Vector.DF:", "if False:", _AFTER),
    Defect("32", "INT3 of a breakpoint left in memory", _STOPS,
           "self._put_back(address, byte, in_guest=not left)", "pass", _STOPPING),
    Defect("33", "an access forgotten when its instruction traps", _STOPS, "self._pending = hit", "pass", _STOPPING),
    Defect("34a", "an interrupt lost at a watchpoint", _TCG, "            set_intercept(control, ExitCode.INTR)",
           "            pass", _STOPPING),
    Defect("34b", "an interrupt lost at a watchpoint", _DELIVERIES,
           "idtr.limit, self._idt_limit = self._idt_limit, None", "self._idt_limit = None", _STOPPING),
    Defect("34c", "an event lost at a watchpoint", _DELIVERIES,
           "places = [(frame.gva, frame.width * len(frame.values))]", "places = []", _STOPPING),
    Defect("35", "a cause named without a proof", f"{_EXPLAIN}/proof.py",
           "        for change in tried:\n            if attempt.changed(change).succeeds():",
           "        for change in tried:\n            if change:", _NO_GUEST, ("tests/explain/test_random.py",)),
    Defect("36", "the second of two causes missed", f"{_EXPLAIN}/proof.py", "tried[:_TRIED]", "tried[:0]", _NO_GUEST,
           ("tests/explain/test_explanation.py",)),
    Defect("37", "a PDPE of PAE paging blamed for rights", f"{_EXPLAIN}/pages.py", "del entries[0]", "pass",
           _NO_GUEST, ("tests/explain/test_pages.py",)),
    Defect("38a", "the address of another page fault", f"{_EXPLAIN}/blackbox.py",
           "exit.address, exit.vectoring_address", "exit.address, exit.address", _NO_GUEST,
           ("tests/explain/test_blackbox.py",)),
    Defect("38b", "the address of another page fault", _HANDLERS, "vcpu.save.cr2 if vectoring",
           "control.exit_info_2 if vectoring", _NO_GUEST, ("tests/hypervisor/test_recording.py",)),
    Defect("39", "evidence that changes with the guest", f"{_EXPLAIN}/reading.py", "evidence.memory.detach()", "pass",
           _NO_GUEST, ("tests/explain/test_blackbox.py",)),
    Defect("40", "exceptions of several states in one chain", f"{_EXPLAIN}/blackbox.py", '("rip", "rsp",', '("rsp",',
           _NO_GUEST, ("tests/explain/test_evidence.py", "-m", "not slow")),
    Defect("41", "the processor not held against the model", f"{_EXPLAIN}/explain.py",
           "seen.event.vector in raised and ", "", _NO_GUEST, ("tests/explain/test_explanation.py",)),
    Defect("42", "a repair stored where there is no memory", f"{_EXPLAIN}/memory.py",
           "                if before is not None:\n                    shift = at % 8 * 8",
           "                if (before := before or 0) >= 0:\n                    shift = at % 8 * 8",
           _NO_GUEST, ("tests/explain/test_memory.py",)),
    Defect("43", "a handler that is not executable taken for a success", f"{_EXPLAIN}/attempt.py",
           " and self.handler_is_executable(outcome)", "", _NO_GUEST, ("tests/explain/test_explanation.py",)),
    Defect("44", "a write without a dirty bit", f"{_ARCH}/address_space.py", "A | D if access & WRITE else A", "A",
           _NO_GUEST, ("tests/arch/test_address_space.py",)),
    Defect("45", "SMAP lifted for the processor's own reads", f"{_ARCH}/address_space.py",
           "(access & IMPLICIT or not ac)", "not ac", _NO_GUEST, ("tests/arch/test_address_space.py",)),
    Defect("46", "a stack not aligned before the pushes", f"{_ARCH}/delivery/access.py", "(rsp & ~0xF) - 8", "rsp - 8",
           _NO_GUEST, ("tests/arch/delivery/test_delivered.py",)),
    Defect("47", "CR2 with the first of two addresses", f"{_ARCH}/delivery/chain.py",
           "cr2 if outcome.address is None else outcome.address", "outcome.address if cr2 is None else cr2",
           _NO_GUEST, ("tests/arch/delivery/test_chain.py",)),
    Defect("48", "RIP left on an instruction that REP repeats no more", f"{_UNICORN}/watchpoints.py",
           "                self._end_repetition()", "                pass", _STOPPING,
           (f"{_UNICORN_TESTS}/test_watchpoints.py",)),
    Defect("49", "a watchpoint reported of an instruction that faulted", f"{_UNICORN}/watchpoints.py",
           "if event not in _AFTER:", "if False:", _STOPPING, (f"{_UNICORN_TESTS}/test_watchpoints.py",)),
    Defect("50", "a watchpoint that does not follow the page tables", f"{_UNICORN}/watchpoints.py",
           "            elif writes:", "            elif False:", _STOPPING,
           (f"{_UNICORN_TESTS}/test_watchpoints.py",)),
    Defect("51", "the #DB of the instruction that hit a watchpoint lost", f"{_UNICORN}/loop.py",
           "event == DEBUG_TRAP", "False", _STOPPING, (f"{_UNICORN_TESTS}/test_watchpoints.py",)),
    Defect("52", "stores of what comes after a breakpoint", f"{_UNICORN}/hooks.py",
           "self._refused = self.saved = True", "self.saved = True", "", (f"{_UNICORN_TESTS}/test_breakpoints.py",)),
    Defect("53", "an interrupt of the VMCB noticed late", f"{_UNICORN}/loop.py",
           "cpu.generation, self._pending.due = None, True", "cpu.generation = None", "",
           (f"{_UNICORN_TESTS}/test_processor.py",)),
    Defect("54", "an interrupt of the machine in a single step", f"{_UNICORN}/interrupts.py",
           "is not None and not self._control.int_ctl & IntCtl.V_INTR_MASKING", "is not None", _STOPPING,
           (f"{_UNICORN_TESTS}/test_processor.py",)),
    Defect("55", "an NMI inside the handler of an NMI", f"{_UNICORN}/interrupts.py",
           "self._state.nmi_blocked = True", "pass", "", (f"{_UNICORN_TESTS}/test_processor.py",)),
    Defect("56", "SFMASK not applied by SYSCALL", f"{_UNICORN}/calls.py",
           "~(save.sfmask | RFLAGS.RF)", "~RFLAGS.RF", "", (f"{_UNICORN_TESTS}/test_calls.py",)),
    Defect("57", "ports permitted whatever the TSS says", f"{_UNICORN}/bus.py",
           "or self._read(task.base + place)", "or self._read(task.base + place) * 0", "",
           (f"{_UNICORN_TESTS}/test_bus.py",)),
    Defect("58", "a delivery replayed over tables that changed", f"{_UNICORN}/delivery_cache.py",
           "if read(ram.words) != before:", "if False:", "", (f"{_UNICORN_TESTS}/test_delivery_cache.py",)),
    Defect("59", "a disk with GRUB's core image taken for a kernel", f"{_GUESTS}/recognise.py",
           "if media.boot_signature_present(head):",
           "if media.boot_signature_present(head) and not multiboot.find(head):", _LOADING, _RECOGNISE_TESTS),
    Defect("60", "a multiboot header without its checksum", f"{_GUESTS}/formats/multiboot.py",
           "if magic == MAGIC and (magic + flags + checksum) & 0xFFFF_FFFF == 0:", "if magic == MAGIC:", _LOADING,
           _RECOGNISE_TESTS),
    Defect("61", "a kernel entered at its virtual address", f"{_GUESTS}/formats/elf.py",
           "return self.virtual_entry - segment.virtual + segment.address", "return self.virtual_entry", _LOADING,
           _RECOGNISE_TESTS),
    Defect("62", "a PVH note missed after a padded one", f"{_GUESTS}/formats/elf.py",
           "at = start + -(-descriptor_size // pad) * pad", "at = start + descriptor_size", _LOADING, _RECOGNISE_TESTS),
    Defect("63", "a kernel's bss not cleared", f"{_GUESTS}/boot/multiboot.py",
           "content[start : start + size], bss_end - header.load_address)", "content[start : start + size])", _LOADING,
           _BOOT_TESTS),
    Defect("64", "the memory above 1 MiB counted from 0", f"{_GUESTS}/boot/multiboot.py", "ram.upper_size >> 10,",
           "ram.size >> 10,", _LOADING, _BOOT_TESTS),
    Defect("65", "what is loaded overlaps what was loaded before", f"{_GUESTS}/boot/ram.py",
           "if gpa < taken_end and start < end:", "if start <= gpa < taken_end:", _LOADING, _BOOT_TESTS),
    Defect("66", "IRQ 8 to 15 not ended at the second 8259", f"{_GUESTS}/boot/bios_data.py",
           "(0x70, _END_SLAVE)", "(0x70, _END_MASTER)", _LOADING, _BOOT_TESTS),
    Defect("67", "a callback's error swallowed", "src/trapline/api.py", "self._raised = error", "pass", _WATCHING,
           _MACHINE_TESTS),
    Defect("68", "a callback's condition ignored", f"{_SESSION}/observing.py",
           "if self._condition is not None and not self._condition.matches(exc):", "if False:", _WATCHING,
           _MACHINE_TESTS),
    Defect("69", "Stop.deliver without effect", "src/trapline/api.py", "self.machine.session.vm.decide(decision)",
           "pass", _WATCHING, _MACHINE_TESTS),
    Defect("70", "the guest's end at a timeout lost", "src/trapline/api.py",
           "if halted.reason is not StopReason.INTERRUPTED:", "if False:", _WATCHING, _MACHINE_TESTS),
    Defect("71", "a breakpoint by name without the slide", "src/trapline/symbols/files.py",
           "return found[name] + file.slide", "return found[name]", _WATCHING, _MACHINE_TESTS),
    Defect("72", "an exception counted twice for a rule", f"{_SESSION}/rules.py",
           "return {*self._rules, *(expectation.rule for expectation in self._expectations)}",
           "return [*self._rules, *(expectation.rule for expectation in self._expectations)]", _WATCHING,
           ("tests/session/test_rules.py",)),
    Defect("73", "exit code 0 though a rule was violated", "src/trapline/report/result.py",
           "return RULE_BROKEN if code == 0 and self.violations else code", "return code", _WATCHING,
           ("tests/session/test_rules.py",)),
    Defect("74", "exit code 0 though the guest reported a failure", "src/trapline/report/result.py",
           "            code = _GUEST_FAILED", "            pass", _WATCHING,
           ("tests/cli/test_run.py", "-k", "exit_code")),
    Defect("75", "a dialogue that reads its text again", f"{_SESSION}/dialogue.py", "data, self._read_to = found",
           "data, _ = found", _WATCHING, _MACHINE_TESTS),
    Defect("76", "TF in the flags that a stepped PUSHF pushed", f"{_HYPERVISOR}/trap_flag.py",
           "            _clear_pushed(vcpu)", "            pass", _STOPPING, _STEP_TESTS),
    Defect("77", "SFMASK of a stepped SYSCALL not restored", f"{_HYPERVISOR}/trap_flag.py",
           "vcpu.save.sfmask = armed.masked", "pass", _STOPPING, _STEP_TESTS),
    Defect("78", "TF in the TSS of a task that a step left", f"{_HYPERVISOR}/trap_flag.py",
           "memory.write(gpa, bytes((memory.read(gpa, 1)[0] & ~(_TF >> 8),)))", "pass", _STOPPING, _STEP_TESTS),
    Defect("79", "interrupts not held back from a step", _INTERCEPTS, "control.int_ctl |= IntCtl.V_INTR_MASKING",
           "pass", _STOPPING, _STEP_TESTS),
    Defect("80", "CR2 not set by a stepped #PF that is not forced", f"{_HYPERVISOR}/step_delivery.py",
           "vcpu.save.cr2 = control.exit_info_2", "pass", _STOPPING, _STEP_TESTS),
    Defect("81", "a run stops at the breakpoint that it starts at", f"{_HYPERVISOR}/step.py",
           "code_address(vcpu.save) in vcpu.breakpoints", "False", _STOPPING, _STEP_TESTS),
    Defect("82", "an interrupt shadow kept over an injection", _DELIVERY, "    control.interrupt_shadow = 0\n", "", "",
           ("tests/hypervisor/test_delivery.py",)),
    Defect("83", "an error code pushed in real mode", _DELIVERY, "if code is not None and not save.cr0 & CR0.PE:",
           "if code is None:", "", ("tests/hypervisor/test_delivery.py", "tests/hypervisor/test_injection.py")),
    Defect("84", "RF left after a fault that was not delivered", _LOOP, "vcpu.save.rflags &= ~RFLAGS.RF", "pass", "",
           ("tests/hypervisor/test_delivery.py", "tests/hypervisor/test_vcpu.py")),
    Defect("85", "a trap injected instead returns to the old nRIP", _DELIVERY, "vcpu.control.nrip = vcpu.save.rip",
           "pass", _WATCHING, ("tests/hypervisor/test_injection.py",)),
    Defect("86", "#CP injected on a CPU without shadow stacks", _DELIVERY,
           "if event.vector == Vector.CP and not _has_shadow_stacks(vcpu):", "if False:", _WATCHING,
           ("tests/hypervisor/test_injection.py",)),
    Defect("87", "console output before the record of an earlier exception", f"{_UNICORN}/processor.py",
           "if self._forwarding.waits:", "if False:", _WATCHING, ("tests/cli/test_choice.py",)),
    Defect("88", "a number for a record that is left out", f"{_TRACE}/record_filter.py",
           "first + len(kept) // RECORD_SIZE", "first + place // RECORD_SIZE", _AFTER,
           ("tests/trace/test_record_filter.py",)),
    Defect("89", "the condition of a stop ignored", f"{_TRACE}/condition/__init__.py",
           "return self.condition is None or self.condition.matches(exception)", "return True", _WATCHING,
           ("tests/trace/condition/test_condition.py", "tests/session/test_run.py", "-m", "not qemu")),
    Defect("90", "a stop that hides a violated rule", f"{_SESSION}/run.py", "(ruling, stopping)", "(stopping, ruling)",
           _WATCHING, ("tests/session/test_run.py", "-m", "not qemu")),
    Defect("91", "a stop at what is not forced accepted", "src/trapline/trace/rules.py", "vectors & ~forced", "0",
           _WATCHING, ("tests/session/test_run.py", "-m", "not qemu")),
    Defect("92", "an output emptied before the guest runs", f"{_SESSION}/output.py", "os.O_CLOEXEC | os.O_NOCTTY",
           "os.O_CLOEXEC | os.O_TRUNC", _WATCHING, ("tests/cli/test_outputs.py", "-k", "not_start")),
    Defect("93", "an output that is another name of an input", f"{_SESSION}/clash.py",
           "yield status.st_dev, status.st_ino\n", "yield target\n", _WATCHING,
           ("tests/cli/test_outputs.py", "-k", "is_the_guest")),
    Defect("94", "page tables blamed without a proof", f"{_EXPLAIN}/paging.py",
           "if access.allowed(attempt.changed(change)) is not None:", "if change:", _NO_GUEST,
           ("tests/explain/test_paging.py",)),
    Defect("95", "any values taken for a frame above an error code", f"{_EXPLAIN}/frames.py",
           "or not frame.flags & RFLAGS.ALWAYS_ONE ", "", _NO_GUEST, ("tests/explain/test_rules.py",)),
    Defect("96", "a repair of page tables in a table that the walk reads", f"{_EXPLAIN}/tables.py",
           "gpa >= 0 and gpa not in used and", "gpa >= 0 and", _NO_GUEST, ("tests/explain/test_paging.py",)),
    Defect("97", "an exception without a signal delivered in gdb", f"{_GDB}/resuming.py",
           "return FORWARD if own == signals.TRAP else DISCARD", "return FORWARD", _NO_DEBUGGER, _STUB_TESTS),
    Defect("98", "a breakpoint that gdb has cut to 32 bits not in the highest 2 GiB", f"{_GDB}/points.py",
           "sign_extended(address) if narrow else address", "address", _NO_DEBUGGER, _STUB_TESTS),
    Defect("99", "RIP in gdb without the base of CS", f"{_GDB}/reading.py", "return target.cpu.address",
           "return target.cpu.registers.rip", _NO_DEBUGGER, _STUB_TESTS),
    Defect("100", "a run to an instruction that stops in a deeper frame", "src/trapline/debugger/target.py",
           "if above is None or self.cpu.registers.rsp > above:", "if True:", _NO_DEBUGGER,
           ("tests/debugger/test_target.py",)),
)  # fmt: skip
