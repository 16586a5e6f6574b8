"""The guest's BIOS: restored before the guest starts, and entered where its own first jump leads."""

from typing import Final

from trapline.arch.vmcb import Vmcb

from .firmware import Firmware
from .hostmem import ProcessMemory
from .layout import TOKEN_AT, Mailbox
from .ram import Ram

_SHADOW_END: Final = 0x10_0000


def restore(firmware: Firmware, memory: Ram, block: ProcessMemory, mailbox: Mailbox) -> None:
    """Put the firmware in RAM at the first power-on; after a reset replace only copies of our patches in it.

    A reset keeps a BIOS's shadow RAM, with what the guest wrote there. Of UEFI firmware it has what is in ROM else.
    At the first power-on `block` is located in QEMU as well, by its token.
    """
    mailbox.open_shadow = int(firmware.uefi)
    start = _SHADOW_END - len(firmware.shadow)
    first = bool(mailbox.token)
    if first:
        token = mailbox.token.to_bytes(8, "little")
        block.locate(TOKEN_AT, token)
        memory.write(TOKEN_AT, bytes(len(token)))
        mailbox.token = 0
    if first or firmware.uefi:
        memory.write(start, firmware.shadow)
        return
    for offset, ours in firmware.patches:
        gpa = start + offset
        if memory.read(gpa, len(ours)) == ours:
            memory.write(gpa, firmware.bios[offset : offset + len(ours)])


def start(firmware: Firmware, vmcb: Vmcb) -> None:
    """Without nested paging the reset vector holds our jump: start at the target of the BIOS's own."""
    cs = vmcb.save.cs
    if firmware.start is None:
        cs.base = cs.selector << 4  # the same code in the shadow RAM below 1 MiB
        return
    cs.selector, vmcb.save.rip = firmware.start
    cs.base = cs.selector << 4
