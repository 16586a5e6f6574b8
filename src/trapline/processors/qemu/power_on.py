"""What a machine needs that was switched on or reset: an address for the shared memory, its BIOS, a control area."""

from collections.abc import Sequence

from . import bios, nested
from .confinement import check_machine
from .facts import Facts, check_probed
from .firmware import Firmware
from .hostmem import ProcessMemory
from .layout import SharedMemory
from .placement import clear_control, place
from .qmp import Qmp
from .ram import Ram
from .version import check_svm


class PowerOn:
    """Prepares the machine after each power-on and reset, before its guest starts."""

    def __init__(
        self,
        command: Sequence[str],
        shared: SharedMemory,
        qmp: Qmp,
        firmware: Firmware,
        block: ProcessMemory,
        ram: Ram,
        *,
        accelerator: str,
        isolated: bool,
        nests: bool,
        facts: Facts,
    ) -> None:
        """`command` is QEMU's command line; the others are those of `QemuMachine`.

        `nests`: nested paging is used, which with several CPUs it is without isolation as well.
        """
        self._command, self._shared, self._qmp = command, shared, qmp
        self._firmware, self._block, self._ram = firmware, block, ram
        self._accelerator, self._isolated, self._nests, self._facts = accelerator, isolated, nests, facts
        self._in_firmware = False

    def place(self) -> None:
        """Answer the firmware, which waits for the address of the shared memory."""
        place(self._shared, self._ram.end, self._command, isolated=self._isolated)

    def initialise(self) -> None:
        """Check the machine, and initialise everything of ours in it."""
        mailbox, control = self._shared.mailbox, self._shared.vmcb.control
        check_probed(self._facts, self._qmp.version(), self._command[0], self._accelerator)
        check_svm(mailbox.efer)
        mailbox.reset = mailbox.features = 0
        bios.restore(self._firmware, self._ram, self._block, mailbox)
        clear_control(control, self._shared.block)
        if self._isolated:
            check_machine(self._qmp)
        if self._nests:
            root = nested.build(self._shared, self._firmware, guards_apic=bool(mailbox.others))
            control.np_control, control.ncr3 = 1, root
        self._in_firmware = True

    def leave_firmware(self) -> None:
        """Let the first entry after that start where the guest's BIOS does, and not in our firmware."""
        if self._in_firmware and not self._nests:
            bios.start(self._firmware, self._shared.vmcb)
        self._in_firmware = False
