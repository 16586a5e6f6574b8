"""What a QEMU machine has once, however many CPUs: its process, QMP, its memory, its start and its end."""

from functools import partial

from trapline.machine.processor import Outcome

from . import pci
from .damage import Damage
from .ending import ended
from .facts import Facts, capabilities
from .firmware import Firmware
from .hostmem import ProcessMemory
from .inspection import read_chips, read_screen
from .layout import SharedMemory
from .power_on import PowerOn
from .process import QemuProcess
from .qmp import Qmp
from .ram import Ram
from .resets import Resets
from .watchdog import Watchdog


class QemuMachine:
    """The machine. Its CPUs are `QemuCpu`s."""

    def __init__(
        self,
        qemu: QemuProcess,
        firmware: Firmware,
        block: ProcessMemory,
        ram: Ram,
        *,
        accelerator: str,
        isolated: bool,
        facts: Facts,
        cpus: int = 1,
    ) -> None:
        """`facts`: what the QEMU was found to do with the accelerator."""
        self.qemu, self.block, self.ram = qemu, block, ram
        self.accelerator, self.facts = accelerator, facts
        self.tcg = accelerator == "tcg"
        self.capabilities = capabilities(accelerator, facts)
        self.has_uefi = firmware.uefi
        self.exit_status: int | None = None
        self.hints: list[str] = []
        """Sentences on accesses that a guest cannot have meant to permit, and on how it ended."""
        self.shared = shared = SharedMemory(qemu.monitor)
        """The part of the boot CPU."""
        self.qmp = Qmp(qemu.qmp)
        self.chips, self.read_screen = partial(read_chips, self.qmp, cpus), partial(read_screen, self.qmp)
        self.watchdog = Watchdog(qemu.command, shared.mailbox, self.qmp.run_state)
        mapped = partial(self.qmp.has_memory_at, slot=pci.MONITOR_DEVICE[0], function=pci.MONITOR_DEVICE[1])
        self.damage = Damage(shared, isolated=isolated, q35=ram.machine_is_q35, mapped=mapped)
        self.resets = Resets(qemu.log, self.damage)
        self.power_on = PowerOn(
            *(qemu.command, shared, self.qmp, firmware, block, ram),
            accelerator=accelerator,
            isolated=isolated,
            nests=isolated or cpus > 1,
            facts=facts,
        )
        self._begun = False

    def place(self) -> None:
        """The machine was switched on or reset, and the firmware waits for the address of the shared memory."""
        self.resets.check()
        self.power_on.place()
        self.capabilities = self.capabilities._replace(physical_bits=self.shared.base.bit_length())

    def begin(self) -> Outcome:
        """The machine was switched on or reset: initialise what it has once; return what it was."""
        self.resets.begin()
        self.damage.keep()
        outcome = Outcome.WOKEN if self._begun and self.qmp.woke_up() else Outcome.RESET
        self._begun = True
        self.power_on.initialise()
        return outcome

    def end(self, *, reported: bool, by_guest: bool) -> Outcome:
        """QEMU has ended; return what that means, or raise an error that says why.

        `reported`: the firmware has reported. `by_guest`: the guest used isa-debug-exit.
        """
        if not reported:
            raise self.qemu.launch_error()
        qemu, reason = self.qemu, self.qmp.shutdown_reason()
        code = qemu.process.returncode
        assert code is not None, "QEMU has not ended"
        end = ended(code, qemu.errors, by_guest=by_guest, reason=reason)
        self.exit_status = end.exit_status
        self.hints += end.hints
        begun, self._begun = self._begun, False  # there is no machine that could begin again
        return end.outcome if begun else Outcome.OFF

    def close(self) -> None:
        """End QEMU and release the memory."""
        self.qmp.close()
        self.qemu.close()
        self.block.close()
