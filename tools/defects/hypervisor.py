"""Known defects of the hypervisor and the facts of `arch`."""

from typing import Final

from tools.defect import Defect

from .reasons import NO_DEBUGGER, NO_GUEST, ONE_CPU, STOPPING, WATCHING

_ARCH: Final = "src/trapline/arch"
_EMULATION: Final = f"{_ARCH}/emulation.py"
_HYPERVISOR: Final = "src/trapline/hypervisor"
_DELIVERY, _HANDLERS, _INTERCEPTS, _LOOP = (
    f"{_HYPERVISOR}/{name}.py" for name in ("delivery", "handlers", "intercepts", "loop")
)
_BOARD_TESTS: Final = ("tests/hypervisor/test_board_loop.py",)
_STEP_TESTS: Final = ("tests/hypervisor/test_step.py",)

DEFECTS: Final = (
    Defect("1a", "no #DF combining", _DELIVERY, "    if result is SHUTDOWN:",
           "    if result is not SHUTDOWN:\n        result = queued\n    else:"),
    Defect("2a", "no triple fault", _DELIVERY, "        return Stop(StopReason.SHUTDOWN)", "        result = queued"),
    Defect("4", "no #DB after an emulated instruction", _EMULATION, "if not flags & RFLAGS.TF:", "if True:"),
    Defect("5", "EFER.SVME visible", _HANDLERS, "save.efer & ~EFER.SVME,", "save.efer,"),
    Defect("6", "SVM instruction skipped instead of #UD", _HANDLERS, "    return raise_exception(vcpu, Vector.UD)",
           "    vcpu.processor.vmcb.save.rip += 3\n    return Resume.DONE"),
    Defect("7a", "CR2 not set", _DELIVERY, "vcpu.save.cr2 = exit.address", "pass"),
    Defect("8a", "error code lost", _DELIVERY, "return exit_info_1 & 0xFFFF_FFFF", "return 0"),
    Defect("9", "HSAVE_PA not trapped", _INTERCEPTS, "(msr.EFER, msr.VM_HSAVE_PA, msr.VM_CR)", "(msr.EFER, msr.VM_CR)"),
    Defect("12a", "an interrupt counted as contributory", "src/trapline/arch/events.py",
           "vectoring.type != EventType.EXCEPTION or queued.type != EventType.EXCEPTION:\n        return queued\n",
           "queued.type != EventType.EXCEPTION:\n        return queued\n    if vectoring.type == EventType.INTR:\n"
           "        vectoring = Event(Vector.GP, EventType.EXCEPTION, 0)\n"),
    Defect("13a", "a vectoring exit swallowed", _LOOP, "        requeue(vcpu, vcpu.vectoring)",
           "        pass",
           "during a delivery TCG leaves by exceptions only, and those owe it nothing unless they are discarded"),
    Defect("15", "EFER write dropping SCE/NXE", _HANDLERS, "value & ~EFER.LMA |",
           "value & ~(EFER.LMA | EFER.SCE | EFER.NXE) |", "TCG keeps SVME by itself, so that no write exits"),
    Defect("16", "DR6 clobbered", _EMULATION, "save.dr6 |= DR6.BS", "save.dr6 = DR6.BS"),
    Defect("17a", "RF left after an emulated instruction", _EMULATION, "= flags & ~RFLAGS.RF", "= flags"),
    Defect("17d", "RF set where TCG sets none", _DELIVERY, "capabilities.forwards_set_rf", "capabilities"),
    Defect("38b", "the address of another page fault", _HANDLERS, "vcpu.save.cr2 if vectoring",
           "control.exit_info_2 if vectoring", NO_GUEST, ("tests/hypervisor/test_recording.py",)),
    Defect("44", "a write without a dirty bit", f"{_ARCH}/address_space.py", "A | D if access & WRITE else A", "A",
           NO_GUEST, ("tests/arch/test_address_space.py",)),
    Defect("45", "SMAP lifted for the processor's own reads", f"{_ARCH}/address_space.py",
           "(access & IMPLICIT or not ac)", "not ac", NO_GUEST, ("tests/arch/test_address_space.py",)),
    Defect("46", "a stack not aligned before the pushes", f"{_ARCH}/delivery/access.py", "(rsp & ~0xF) - 8", "rsp - 8",
           NO_GUEST, ("tests/arch/delivery/test_delivered.py",)),
    Defect("47", "CR2 with the first of two addresses", f"{_ARCH}/delivery/chain.py",
           "cr2 if outcome.address is None else outcome.address", "outcome.address if cr2 is None else cr2",
           NO_GUEST, ("tests/arch/delivery/test_chain.py",)),
    Defect("76", "TF in the flags that a stepped PUSHF pushed", f"{_HYPERVISOR}/trap_flag.py",
           "            _clear_pushed(vcpu)", "            pass", STOPPING, _STEP_TESTS),
    Defect("77", "SFMASK of a stepped SYSCALL not restored", f"{_HYPERVISOR}/trap_flag.py",
           "vcpu.save.sfmask = armed.masked", "pass", STOPPING, _STEP_TESTS),
    Defect("78", "TF in the TSS of a task that a step left", f"{_HYPERVISOR}/trap_flag.py",
           "memory.write(gpa, bytes((memory.read(gpa, 1)[0] & ~(_TF >> 8),)))", "pass", STOPPING, _STEP_TESTS),
    Defect("79", "interrupts not held back from a step", _INTERCEPTS, "control.int_ctl |= IntCtl.V_INTR_MASKING",
           "pass", STOPPING, _STEP_TESTS),
    Defect("80", "CR2 not set by a stepped #PF that is not forced", f"{_HYPERVISOR}/step_delivery.py",
           "vcpu.save.cr2 = control.exit_info_2", "pass", STOPPING, _STEP_TESTS),
    Defect("81", "a run stops at the breakpoint that it starts at", f"{_HYPERVISOR}/step.py",
           "code_address(vcpu.save) in vcpu.breakpoints", "False", STOPPING, _STEP_TESTS),
    Defect("82", "an interrupt shadow kept over an injection", _DELIVERY, "    control.interrupt_shadow = 0\n", "", "",
           ("tests/hypervisor/test_delivery.py",)),
    Defect("83", "an error code pushed in real mode", _DELIVERY, "if code is not None and not save.cr0 & CR0.PE:",
           "if code is None:", "", ("tests/hypervisor/test_delivery.py", "tests/hypervisor/test_injection.py")),
    Defect("84", "RF left after a fault that was not delivered", _LOOP, "vcpu.save.rflags &= ~RFLAGS.RF", "pass", "",
           ("tests/hypervisor/test_delivery.py", "tests/hypervisor/test_vcpu.py")),
    Defect("85", "a trap injected instead returns to the old nRIP", _DELIVERY, "vcpu.control.nrip = vcpu.save.rip",
           "pass", WATCHING, ("tests/hypervisor/test_injection.py",)),
    Defect("86", "#CP injected on a CPU without shadow stacks", _DELIVERY,
           "if event.vector == Vector.CP and not _has_shadow_stacks(vcpu):", "if False:", WATCHING,
           ("tests/hypervisor/test_injection.py",)),
    Defect("116", "tags of other x87 registers", f"{_ARCH}/fxsave.py", "(number - top) %", "(number + top) %",
           NO_DEBUGGER, ("tests/arch/test_fxsave.py",)),
    Defect("130", "an event injected into a CPU that took an INIT", _LOOP,
           "vcpu.control.event_inj = vcpu.control.interrupt_shadow = 0", "pass", ONE_CPU, _BOARD_TESTS),
    Defect("131", "other CPUs execute while the guest is stopped", f"{_HYPERVISOR}/board_loop.py",
           "            if stop.reason is not StopReason.TIMEOUT:", "            if False:", ONE_CPU, _BOARD_TESTS),
    Defect("132", "a CPU not reset with its machine", _LOOP, "    for vcpu in vcpus:\n        processor",
           "    for vcpu in vcpus[:1]:\n        processor", ONE_CPU, _BOARD_TESTS),
    Defect("133", "a new mask for one CPU of several", f"{_HYPERVISOR}/vm.py",
           "            for vcpu in self.vcpus:\n                vcpu.policy",
           "            for vcpu in self.vcpus[:1]:\n                vcpu.policy", ONE_CPU, _BOARD_TESTS),
)  # fmt: skip
