"""Known defects of the glue to QEMU and its monitor."""

from typing import Final

from tools.defect import Defect

from .reasons import BOOTED, ONE_CPU, STOPPING

_QEMU: Final = "src/trapline/processors/qemu"
_TCG, _MONITOR, _PLANS, _STOPS, _DELIVERIES, _RING, _BIOS = (
    f"{_QEMU}/{name}.py" for name in ("quirks_tcg", "monitor/monitor", "plans", "stops", "deliveries", "ring", "bios")
)
_SOFT, _GUEST_CODE = f"{_QEMU}/software_interrupts.py", f"{_QEMU}/monitor/guest_code.py"

DEFECTS: Final = (
    Defect("1b", "no #DF combining", _TCG, "        if result is SHUTDOWN:",
           "        if result is not SHUTDOWN:\n            result = Event(vector, EventType.EXCEPTION, code)\n"
           "        else:"),
    Defect("2b", "no triple fault", _TCG, "            control.exit_code = ExitCode.SHUTDOWN\n            return True",
           "            result = Event(vector, EventType.EXCEPTION, code)"),
    Defect("3a", "no INT rewind", _SOFT, "control.nrip, save.rip = save.rip, injected[0]", "control.nrip = save.rip"),
    Defect("3b", "no INT rewind", _GUEST_CODE, 'code.mov(mailbox("soft_rip"), RCX)', "pass"),
    Defect("7b", "CR2 not set", _TCG, "self._vmcb.save.cr2 = control.exit_info_2", "pass"),
    Defect("7c", "CR2 not set", _MONITOR, 'code.mov(vmcb("save.cr2"), RDX)', "pass"),
    Defect("8b", "error code lost", _TCG, "code = control.exit_info_1 & 0xFFFF_FFFF if", "code = 0 if"),
    Defect("8c", "error code lost", _MONITOR,
           'code.mov(Mem(RAX, offset_of(Vmcb, "control.event_inj") + 4), EDX)', "pass"),
    Defect("10a", "CPL-3 #GP not turned into #UD", _TCG, "candidate = vectoring is None and",
           "candidate = vectoring is None and self._vmcb.save.cpl != 3 and"),
    Defect("10b", "CPL-3 #GP not turned into #UD", _TCG, "real = self._wanted | 1 << Vector.GP", "real = self._wanted"),
    Defect("10c", "CPL-3 #GP not turned into #UD", _GUEST_CODE, 'code.jae("guest\'s")',
           'code.jmp("guest\'s")'),
    Defect("11a", "INT n injected as type 3 (no DPL check)", _SOFT, "encode(Event(event.vector, EventType.SOFT))",
           "encode(Event(event.vector, EventType.EXCEPTION))"),
    Defect("11b", "INT n injected as type 3 (no DPL check)", _GUEST_CODE, "VALID | EventType.SOFT << 8",
           "VALID | EventType.EXCEPTION << 8"),
    Defect("12b", "an interrupt counted as contributory", _TCG,
           "return vector == Vector.DF or bool(seen >> vector & 1)", "return False"),
    Defect("13b", "a vectoring exit swallowed", _TCG, "            self._vmcb.control.event_inj = encode(event)",
           "            self._vmcb.control.event_inj = 0"),
    Defect("13c", "a vectoring exit swallowed", _MONITOR,
           '    code.test(vmcb("control.exit_int_info", 32), VALID)\n    code.jne("slow")\n', ""),
    Defect("14", "BIOS copied again on reset", _BIOS, "        mailbox.token = 0\n", ""),
    Defect("17b", "RF left after an emulated instruction", f"{_QEMU}/monitor/guarded_ports.py",
           "0xFFFF_FFFF & ~RFLAGS.RF", "0xFFFF_FFFF"),
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
    Defect("32", "INT3 of a breakpoint left in memory", _STOPS,
           "self._put_back(address, byte, in_guest=not left)", "pass", STOPPING),
    Defect("33", "an access forgotten when its instruction traps", _STOPS, "self._pending = hit", "pass", STOPPING),
    Defect("34a", "an interrupt lost at a watchpoint", _TCG, "            set_intercept(control, ExitCode.INTR)",
           "            pass", STOPPING),
    Defect("34b", "an interrupt lost at a watchpoint", _DELIVERIES,
           "idtr.limit, self._idt_limit = self._idt_limit, None", "self._idt_limit = None", STOPPING),
    Defect("34c", "an event lost at a watchpoint", _DELIVERIES,
           "places = [(frame.gva, frame.width * len(frame.values))]", "places = []", STOPPING),
    Defect("111", "the RAM that the entry borrows not given back", f"{_QEMU}/firmware_entry.py",
           "    swap(code, RSI, RDI, RCX, RAX)\n    if", "    if", "", ("tests/processors/qemu/test_firmware.py",)),
    Defect("112", "a CPU that has SVM entered without it", f"{_QEMU}/firmware_entry.py",
           "EFER.LME | (0 if unlock_svm else EFER.SVME)", "EFER.LME", "", ("tests/processors/qemu/test_firmware.py",)),
    Defect("113", "the user's own UEFI firmware passed over", f"{_QEMU}/uefi.py",
           "found.setdefault(path.name, path)", "found[path.name] = path", BOOTED,
           ("tests/processors/qemu/test_uefi.py",)),
    Defect("114", "UEFI firmware that needs SMM or SEV taken", f"{_QEMU}/uefi.py",
           " and _UNFIT.isdisjoint(self.features)", "", BOOTED, ("tests/processors/qemu/test_uefi.py",)),
    Defect("126", "an INIT let through to QEMU", f"{_QEMU}/apic.py",
           "cpu.store(address, value & ~_ASSERTS | _LEVEL)", "cpu.store(address, value)", ONE_CPU,
           ("tests/processors/qemu/test_apic.py",)),
    Defect("127", "flags of an OR to the local APIC not set", f"{_QEMU}/apic_stores.py",
           "save.rflags = save.rflags & ~RFLAGS.STATUS | flags", "pass", ONE_CPU,
           ("tests/processors/qemu/test_apic.py",)),
    Defect("128", "a store of R8 to the local APIC takes RAX", f"{_QEMU}/monitor/local_apic.py",
           "    code.or_(RBX, R9)\n", "", ONE_CPU, ("tests/processors/qemu/monitor/test_local_apic_runs.py",)),
    Defect("129", "records of other CPUs without their number", f"{_QEMU}/board.py",
           "number_records(shared.ring, number)", "number_records(shared.ring, 0)", ONE_CPU,
           ("tests/acceptance/test_several_on_qemu.py::test_a_cpu_is_reset_whatever_it_does",)),
)  # fmt: skip
