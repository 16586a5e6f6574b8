"""The processor in this process against Unicorn alone: the same code, the same CPU model, the same run."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import unicorn
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import Uc

from trapline.arch import paging
from trapline.arch.exits import EXCEPTION_EXITS
from trapline.arch.layout import size_of
from trapline.arch.registers import CR0, CR4, DR6, DR7, EFER, RFLAGS
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.arch.vmcb import Vmcb
from trapline.guests.boot.raw import raw
from trapline.hypervisor.exception import InterceptedException, Verdict
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.vcpu import Vcpu
from trapline.hypervisor.vm import Vm
from trapline.processors.unicorn.processor import UnicornProcessor
from trapline.trace.recorder import Recorder

from .figures import Table
from .measure import in_turn, timed

MEMORY: Final = 4 << 20
CODE: Final = 0x10_0000
TIMES: Final = 200_000
TURNS: Final = 100_000_000

_HOST, _VMCB, _SAVED, _TABLES = 0x1000, 0x2000, 0x3000, 0x4000
_VM_HSAVE_PA, _EFER = 0xC001_0117, 0xC000_0080


def in_process(rounds: int, scratch: Path) -> dict[str, Table]:
    """#UD after #UD in this process, recorded and decided in Python; and a guest that raises nothing."""
    return {"ud": _faulting(rounds), "quiet": _quiet(4 * rounds)}  # so little that a busy machine hides it


def _faulting(rounds: int) -> Table:
    loop = _ud_loop()
    found = in_turn(
        {
            "Unicorn, skipping": partial(timed, lambda: _bare(loop, _skip)),
            "none": partial(timed, lambda: _ours(_handled(TIMES), 0)),
            "passed on": partial(timed, lambda: _ours(_handled(TIMES), FORCEABLE)),
            "decided": partial(timed, lambda: _ours(_handled(TIMES), FORCEABLE, decided=True)),
        },
        rounds,
    )
    title = f"{TIMES:,} times #UD in long mode, in this process"
    shares = dict.fromkeys(("Unicorn, skipping", "passed on", "decided"))
    return Table(title, found, ("Unicorn, skipping",), TIMES, shares)


def _quiet(rounds: int) -> Table:
    quiet = struct.pack("<BI", 0xB9, TURNS) + b"\x01\xc8\x31\xc2\xff\xc9\x75\xf8"  # mov ecx; add, xor, dec, jnz
    found = in_turn(
        {
            "Unicorn": partial(timed, lambda: _bare(quiet + b"\x0f\x0b", _stop)),
            "all": partial(timed, lambda: _ours(quiet + _EXIT, FORCEABLE)),
        },
        rounds,
    )
    return Table(f"a loop of {TURNS:,} turns that raises nothing, in this process", found, ("Unicorn",))


_EXIT: Final = b"\xb0\x00\xe6\xf4\xf4"
"""mov al, 0; out 0xf4, al; hlt: isa-debug-exit."""


def _ud_loop() -> bytes:
    """Return mov ecx, TIMES; again: ud2; dec ecx; jnz again; hlt."""
    return struct.pack("<BI", 0xB9, TIMES) + b"\x0f\x0b\xff\xc9\x75\xfa\xf4"


def _handled(times: int) -> bytes:
    """Return the same loop with an IDT and a handler that skips the instruction."""
    handler = CODE + 0x100
    gate = struct.pack("<HHHHQ", handler & 0xFFFF, 0x08, 0x8E00, handler >> 16, 0)
    table = gate.rjust(16 * (Vector.UD + 1), b"\0")
    lidt = b"\x0f\x01\x1c\x25" + struct.pack("<I", CODE + 0x200)
    loop = struct.pack("<BI", 0xB9, times) + b"\x0f\x0b\xff\xc9\x75\xfa"
    code = (lidt + loop + _EXIT).ljust(0x100, b"\x90")
    code += b"\x48\x83\x04\x24\x02\x48\xcf".ljust(0x100, b"\x90")  # add qword [rsp], 2; iretq
    return code + struct.pack("<HQ", len(table) - 1, CODE + 0x210).ljust(16, b"\0") + table


class _Onlooker:
    """Lets the hypervisor decide on each exception, and forward it."""

    vectors = FORCEABLE

    def exception(self, vcpu: Vcpu, exit: InterceptedException, /) -> Verdict:
        return Verdict.FORWARD


def _ours(code: bytes, mask: int, *, decided: bool = False) -> float:
    boot = raw(code, 64, CODE, MEMORY)
    with UnicornProcessor(boot, MEMORY, output=lambda _: None) as processor:
        recorder = Recorder()
        vm = Vm(processor, mask=mask, enter=boot.enter, recorders=(Recording(recorder.add_one),))
        processor.on_records(recorder.add)
        if decided:
            vm.observers.add(_Onlooker())
        start = time.perf_counter()
        vm.run()
        taken = time.perf_counter() - start
    assert processor.exit_status == 1, "the guest did not come to its end"
    assert recorder.tally.total == (TIMES if code == _handled(TIMES) and mask else 0)
    return taken


def _skip(uc: Uc, number: int, _: object) -> None:
    if number == _UD:
        uc.reg_write(x86.UC_X86_REG_RIP, uc.reg_read(x86.UC_X86_REG_RIP) + 2)
    else:
        uc.emu_stop()


def _stop(uc: Uc, *_: object) -> None:
    uc.emu_stop()


_UD: Final = 0x100 + EXCEPTION_EXITS.start + Vector.UD
"""How Unicorn numbers an intercepted #UD; without SVM it does not come to this hook at all."""


def _bare(code: bytes, hook: Callable[..., object]) -> float:
    """Run 64-bit code under Unicorn's VMRUN with a hook and nothing else."""
    uc = Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.ctl_set_cpu_model(x86.UC_CPU_X86_EPYC)
    uc.mem_map(0, MEMORY)
    table = paging.P | paging.RW
    for level in range(3):
        entry = _TABLES + (level + 1) * 0x1000 | table if level < 2 else 0
        uc.mem_write(_TABLES + level * 0x1000, struct.pack("<Q", entry))
    large = struct.pack("<2Q", *(number << 21 | paging.PS | table for number in range(2)))
    uc.mem_write(_TABLES + 0x2000, large)
    uc.mem_write(CODE, code)
    uc.mem_write(_VMCB, bytes(_vmcb()))
    uc.mem_write(_HOST, b"\x0f\x01\xd8\xf4")  # vmrun; hlt
    uc.reg_write(x86.UC_X86_REG_MSR, (_VM_HSAVE_PA, _SAVED))
    uc.reg_write(x86.UC_X86_REG_MSR, (_EFER, EFER.SVME | EFER.LME | EFER.LMA))
    uc.reg_write(x86.UC_X86_REG_CR4, CR4.PAE)
    uc.reg_write(x86.UC_X86_REG_RAX, _VMCB)
    uc.hook_add(unicorn.UC_HOOK_INTR, hook)
    start = time.perf_counter()
    uc.emu_start(_HOST, 0)
    return time.perf_counter() - start


def _vmcb() -> bytearray:
    buffer = bytearray(size_of(Vmcb))
    vmcb = Vmcb.from_buffer(buffer)
    vmcb.control.intercept_exceptions = 0xFFFF_FFFF
    vmcb.control.intercept_misc1, vmcb.control.intercept_misc2, vmcb.control.asid = 1 << 24, 1, 1
    save = vmcb.save
    for segment in (save.es, save.ss, save.ds):
        segment.attributes, segment.limit = 0xC93, 0xFFFF_FFFF
    save.cs.attributes, save.cs.limit = 0xA9B, 0xFFFF_FFFF
    save.efer, save.cr0 = EFER.SVME | EFER.LME | EFER.LMA, CR0.PG | CR0.PE | CR0.ET
    save.cr4, save.cr3 = CR4.PAE, _TABLES
    save.dr6, save.dr7, save.rflags = DR6.FIXED, DR7.FIXED, RFLAGS.ALWAYS_ONE
    save.rip, save.rsp = CODE, CODE
    return buffer
