"""Decide about exceptions while the guest runs: UD2 becomes a call of the hypervisor that prints RAX."""

from trapline import DISCARD, STOP, Decision, ExceptionExit, Machine, Vector

GUEST = (
    b"\xb8\x68\x00\x00\x00"  # mov eax, 'h'
    b"\x0f\x0b"  # ud2
    b"\xb8\x69\x00\x00\x00"  # mov eax, 'i'
    b"\x0f\x0b"  # ud2
    b"\x31\xc0"  # xor eax, eax
    b"\x0f\x0b"  # ud2
    b"\xf4"  # hlt
)

with Machine(GUEST, entry_mode=64, exceptions="all") as m:

    @m.on(Vector.UD, where="cpl == 0")
    def call(exc: ExceptionExit) -> Decision | None:
        if exc.registers.rax == 0:
            return STOP
        print(f"{exc}: {chr(exc.registers.rax)}")
        exc.rip += 2  # the length of UD2
        return DISCARD  # the guest never sees the exception and goes on at RIP

    stop = m.run(timeout=60)
    cpu = m.cpus[0]
    print(f"stopped: {stop.reason.value}")
    print(f"rip {cpu.registers.rip:#x}, rflags {cpu.registers.rflags:#x}")
    for instruction in cpu.disassemble(2):
        print(f"{instruction.address:#x}  {instruction.data.hex():<6}{instruction.text}")
    if why := stop.explain():
        print(why.origin)
