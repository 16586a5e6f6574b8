"""A machine on QEMU is held as one in process is, and a disk is not written to."""

import anyio
import pytest

WRITES = bytes.fromhex("31c0 8ec0 b80103 b90200 ba8000 bb007c cd13 fa 0f0b ebfe")
"""`xor ax, ax; mov es, ax; mov ax, 0x301; mov cx, 2; mov dx, 0x80; mov bx, 0x7c00; int 0x13; cli; ud2; jmp $`: a boot
sector that writes itself to the second sector of the disk; then no timer of the firmware interrupts it."""
SECTOR = 512


@pytest.mark.qemu
def test_a_disk_on_qemu(talk, tmp_path):
    disk = WRITES.ljust(SECTOR - 2, b"\0") + b"\x55\xaa" + bytes(1 << 20)
    (tmp_path / "disk.img").write_bytes(disk)

    async def conversation(session):
        held = await session.call("stop_at", guest="disk.img", at="ud if rip == 0x7c13", timeout=60)
        assert (held["reason"], held["where"]["rip"]) == ("exception", "0x7c13")
        registers = (await session.call("registers"))["registers"]
        assert int(registers["rax"], 16) & 0xFF00 == 0  # AH: written
        tables = {each["name"]: each for each in (await session.call("tables"))["tables"]}
        assert tables["IDT"]["limit"] == "0x3ff"
        resumed = await session.call("resume", verdict="discard", skip=True, timeout=0.5)
        assert resumed["reason"] == "timeout"
        with anyio.move_on_after(0.5) as scope:
            await session.call("resume", timeout=600)
        assert scope.cancelled_caught
        assert (await session.call("disassemble", count=1))["lines"][0].endswith("jmp 0x7c15")

    talk(conversation)
    assert (tmp_path / "disk.img").read_bytes() == disk
