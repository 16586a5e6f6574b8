"""The record of an intercepted exception: a little-endian structure of fixed size."""

from typing import Final

from trapline.arch.layout import Structure, at, gatherer, layout, offset_of, packer, size_of, u8, u16, u32, u64
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb


@layout(size=0x100)
class Record(Structure):
    """The guest's state at the #VMEXIT, before the exception was delivered.

    The general registers have the order and the places of `Gprs`; RSP comes before.
    """

    tsc: u64 = at(0x00)
    """The time stamp counter when the exit was taken."""
    vector: u8 = at(0x08)
    cpl: u8 = at(0x09)
    flags: u16 = at(0x0A)
    error_code: u32 = at(0x0C)
    """Valid when flags has HAS_ERROR_CODE."""
    exit_int_info: u64 = at(0x10)
    """The event that was being delivered, as the EXITINTINFO word; V clear: none."""
    rip: u64 = at(0x18)
    rsp: u64 = at(0x20)
    rflags: u64 = at(0x28)
    cr3: u64 = at(0x30)
    address: u64 = at(0x38)
    """The faulting linear address of a #PF (EXITINFO2); valid when flags has HAS_ADDRESS."""
    cs: u16 = at(0x40)
    ss: u16 = at(0x42)
    vcpu: u16 = at(0x44)
    cs_base: u64 = at(0x48)
    cr0: u64 = at(0x50)
    cr4: u64 = at(0x58)
    efer: u64 = at(0x60)
    dr6: u64 = at(0x68)
    event: u64 = at(0x70)
    """The event that was injected, as the EVENTINJ word; V clear: none."""
    rax: u64 = at(0x80)
    rcx: u64 = at(0x88)
    rdx: u64 = at(0x90)
    rbx: u64 = at(0x98)
    rbp: u64 = at(0xA8)
    rsi: u64 = at(0xB0)
    rdi: u64 = at(0xB8)
    r8: u64 = at(0xC0)
    r9: u64 = at(0xC8)
    r10: u64 = at(0xD0)
    r11: u64 = at(0xD8)
    r12: u64 = at(0xE0)
    r13: u64 = at(0xE8)
    r14: u64 = at(0xF0)
    r15: u64 = at(0xF8)


class RecordFlags:
    """Bits of `Record.flags`."""

    HAS_ERROR_CODE: Final = 1 << 0
    HAS_ADDRESS: Final = 1 << 1
    FORWARDED: Final = 1 << 2
    """It was delivered unchanged."""
    COMBINED: Final = 1 << 3
    """It and the event under delivery became a #DF."""
    SHUTDOWN: Final = 1 << 4
    """It became a shutdown: a triple fault."""
    DISCARDED: Final = 1 << 5
    """An observer decided not to deliver it."""
    SYNTHESIZED: Final = 1 << 6
    """The hypervisor raised it, as the #DF that two exceptions combine to."""
    REPLACED: Final = 1 << 7
    """An observer decided to deliver another exception; `event` is that, or what it combined to."""


RECORD_SIZE: Final = size_of(Record)

GENERAL: Final = (
    "rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
"""The general registers of a record, in their order."""
ORDER: Final = (
    "tsc", "vector", "cpl", "flags", "error_code", "exit_int_info", "rip", "rsp", "rflags", "cr3", "address",
    "cs", "ss", "vcpu", "cs_base", "cr0", "cr4", "efer", "dr6", "event", *GENERAL,
)  # fmt: skip
"""The fields in the order of `PACKED`."""
PACKED, _ORDER = packer(Record)
assert _ORDER == ORDER, "a record is packed and unpacked in this order"
_GENERAL_AT: Final = offset_of(Record, "rax")
assert all(offset_of(Record, name) == _GENERAL_AT + offset_of(Gprs, name) for name in GENERAL), "copied as a whole"
_OTHERS_AT: Final = offset_of(Record, "rcx")
_HEAD, _ = gatherer(Record, ORDER[: -len(GENERAL) + 1])
STATE: Final = {
    "cs": "save.cs.selector",
    "cs_base": "save.cs.base",
    "ss": "save.ss.selector",
    "cpl": "save.cpl",
    "efer": "save.efer",
    "cr4": "save.cr4",
    "cr3": "save.cr3",
    "cr0": "save.cr0",
    "dr6": "save.dr6",
    "rflags": "save.rflags",
    "rip": "save.rip",
    "rsp": "save.rsp",
    "rax": "save.rax",
}
"""Fields that are copies of fields of the VMCB, in the VMCB's order."""
_STATE, _START = gatherer(Vmcb, list(STATE.values()))


class RecordWriter:
    """Writes records of one vCPU from its VMCB and its general registers."""

    def __init__(self, vmcb: Vmcb, gprs: Gprs, vcpu: int) -> None:
        self._vmcb = memoryview(vmcb).cast("B")
        self._gprs = memoryview(gprs).cast("B")[offset_of(Gprs, "rcx") :]
        self._vcpu = vcpu

    def write(
        self,
        buffer: memoryview,
        place: int,
        tsc: int,
        vector: int,
        flags: int,
        error_code: int,
        exit_int_info: int,
        address: int,
        event: int,
    ) -> None:
        """Write a record at byte `place`: what is given here, and the state in the save area."""
        cs, cs_base, ss, cpl, efer, cr4, cr3, cr0, dr6, rflags, rip, rsp, rax = _STATE.unpack_from(self._vmcb, _START)
        _HEAD.pack_into(
            buffer, place,
            tsc, vector, cpl, flags, error_code, exit_int_info,
            rip, rsp, rflags, cr3, address, cs, ss, self._vcpu,
            cs_base, cr0, cr4, efer, dr6, event, rax,
        )  # fmt: skip
        buffer[place + _OTHERS_AT : place + RECORD_SIZE] = self._gprs
