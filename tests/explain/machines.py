"""States of a machine in long mode, with memory that is mapped to itself."""

from trapline.arch.events import Event, EventType
from trapline.arch.paging import PS, RW, A, D, P
from trapline.arch.registers import CR0, CR4, EFER, Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea
from trapline.explain.attempt import Attempt
from trapline.explain.evidence import Evidence, set_field
from trapline.explain.memory import PartialMemory

RAM = 0x10000
PML4, PDPT, GDT, IDT, TSS, CODE, STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x8000
CODE_0, DATA_0, CODE_3, DATA_3 = 0x08, 0x10, 0x18, 0x20
DESCRIPTORS = {
    CODE_0: 0x00AF_9B00_0000_FFFF,
    DATA_0: 0x00CF_9300_0000_FFFF,
    CODE_3: 0x00AF_FB00_0000_FFFF,
    DATA_3: 0x00CF_F300_0000_FFFF,
}
GATE = CODE | CODE_0 << 16 | 0x8E << 40
"""An interrupt gate whose handler is at CODE."""


class Machine:
    """The state, and 64 KiB of memory; what is above reads as all ones."""

    def __init__(self, code=b"\x90", **fields):
        self.memory = bytearray(RAM)
        self.save, self.gprs = SaveArea(), Gprs()
        self.put(PML4, PDPT | P | RW | A)
        self.put(PDPT, P | RW | A | D | PS)
        for selector, descriptor in DESCRIPTORS.items():
            self.put(GDT + selector, descriptor)
        for vector in range(32):
            self.put(IDT + 16 * vector, GATE)
        self.memory[CODE : CODE + len(code)] = code
        state = {
            "cr0": CR0.PE | CR0.PG | CR0.WP | CR0.ET, "cr3": PML4, "cr4": CR4.PAE | CR4.OSFXSR,
            "efer": EFER.LME | EFER.LMA | EFER.NXE, "rflags": 2, "rip": CODE, "rsp": STACK,
            "cs.selector": CODE_0, "cs.attributes": 0xA9B, "ss.selector": DATA_0, "ss.attributes": 0xC93,
            "gdtr.base": GDT, "gdtr.limit": 0x27, "idtr.base": IDT, "idtr.limit": 0x1FF,
        }  # fmt: skip
        for name, value in (state | fields).items():
            set_field(self.save if hasattr(self.save, name.split(".")[0]) else self.gprs, name, value)

    def put(self, gpa, *values):
        """Store values of 64 bits, one after the other."""
        for number, value in enumerate(values):
            self.memory[gpa + 8 * number : gpa + 8 * number + 8] = value.to_bytes(8, "little")

    def partial(self):
        """Return the memory for an attempt."""
        return PartialMemory(
            source=lambda gpa: int.from_bytes(self.memory[gpa : gpa + 8], "little") if gpa < RAM else None
        )

    def attempt(self, event):
        """Return the delivery of an event."""
        return Attempt(self.save, self.partial(), event, 40)

    def evidence(self, vectoring, event=None, becomes=None, first_address=None, address=None):
        """Return evidence of an event raised while another one was delivered."""
        return Evidence(
            self.save, self.gprs, event, vectoring, address, first_address, becomes, 40, self.partial(), None
        )


def fault(vector, code=None):
    """Return an exception."""
    return Event(vector, EventType.EXCEPTION, code)


def page_fault(code=0):
    """Return a #PF."""
    return fault(Vector.PF, code)
