"""How the hypervisor completes an instruction that it emulates: with an exception, or by skipping it."""

from trapline.arch.emulation import finish_instruction
from trapline.arch.events import Event, EventType
from trapline.arch.vectors import Vector

from .delivery import deliver, error_code, forward
from .exception import InterceptedException
from .stop import Answer, Resume
from .vcpu import Vcpu


def raise_exception(vcpu: Vcpu, vector: Vector) -> Answer:
    """Raise an exception for the instruction at RIP, which the hypervisor emulates."""
    code = 0 if error_code(vector, 0) is not None else None
    event = Event(vector, EventType.EXCEPTION, code)
    exit = InterceptedException(event, vcpu.vectoring, None, synthesized=True)
    return forward(vcpu, exit) if vcpu.policy.mask >> vector & 1 else deliver(vcpu, exit)


def skip_instruction(vcpu: Vcpu) -> Answer:
    """Complete an emulated instruction: RIP = nRIP, no RF, no interrupt shadow, and a #DB if TF is set."""
    control, save = vcpu.control, vcpu.save
    save.rip = control.nrip
    return raise_exception(vcpu, Vector.DB) if finish_instruction(control, save) else Resume.REQUEUE
