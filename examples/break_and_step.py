"""Stop at an instruction, step, and stop at a write to memory: the guest cannot find out."""

from trapline import Machine, StopReason

CODE, COUNTER = 0x10_0000, 0x20_0000
GUEST = (
    b"\xb9\x03\x00\x00\x00"  # 0x100000  mov ecx, 3
    b"\xff\x04\x25\x00\x00\x20\x00"  # 0x100005  inc dword ptr [0x200000]
    b"\xe2\xf7"  # 0x10000c  loop 0x100005
    b"\xf4"  # 0x10000e  hlt
)

with Machine(GUEST, entry_mode=64) as m:
    cpu = m.cpus[0]

    m.breakpoints.add(CODE + 0xC)
    stop = m.run(timeout=60)
    print(stop.reason.name, hex(cpu.registers.rip), cpu.disassemble()[0].text)
    m.breakpoints.clear()

    for _ in range(3):
        stop = m.step(timeout=60)
        print(stop.reason.name, hex(cpu.registers.rip), "counter", cpu.read(COUNTER, 4)[0])

    m.watchpoints.add(COUNTER, 4, "w")
    while (stop := m.run(timeout=60)).reason is StopReason.WATCHPOINT:
        print(stop.reason.name, hex(cpu.registers.rip), "counter", cpu.read(COUNTER, 4)[0])
    print(stop.reason.name)
