"""The end of a run by an exit that nothing handles."""

from trapline.arch.consistency import why_invalid
from trapline.arch.exits import ExitCode
from trapline.arch.vmcb import Vmcb, dump

from .stop import Stop, StopReason


def unhandled(vmcb: Vmcb) -> Stop:
    """Return the stop, with the VMCB as text and, where VMRUN refused it, the rule that the guest's state breaks."""
    why = why_invalid(vmcb) if vmcb.control.exit_code == ExitCode.INVALID else None
    refused = "" if why is None else f"the guest entered a state that VMRUN refuses: {why}\n"
    return Stop(StopReason.FAILED, refused + dump(vmcb))
