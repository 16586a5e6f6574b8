import pytest

from trapline.machine.boot import Boot
from trapline.machine.processor import Outcome, Watchpoint
from trapline.processors.unicorn.processor import UnicornProcessor
from trapline.testing.conformance import CHECKS, ConformanceError

EXEMPT = {
    "#AC by": "Unicorn checks no alignment",
    "#XM by": "Unicorn raises no exceptions of SSE",
    "INT1": "Unicorn raises #UD, as for an instruction that does not exist",
}
"""What the processor cannot do, by the beginning of the checks' names."""


@pytest.fixture(scope="module", params=[False, True], ids=["free", "watched"])
def processor(request):
    """A processor, with and without a breakpoint and a watchpoint that nothing hits."""
    with UnicornProcessor(Boot("nothing", "nothing", [], lambda save, gprs: None), 1 << 20, output=print) as processor:
        assert processor.run(None) is Outcome.RESET
        if request.param:
            processor.set_breakpoints(frozenset({0xF_0000}))
            processor.set_watchpoints((Watchpoint(0xF_0008, 16, reads=True),))
        yield processor


def exempt(check):
    """Return the marks of a check: exempt ones must fail, or they are exempt no more."""
    reasons = [reason for start, reason in EXEMPT.items() if check.name.startswith(start)]
    return [pytest.mark.xfail(reason=reason, raises=ConformanceError, strict=True) for reason in reasons]


@pytest.mark.parametrize("check", [pytest.param(check, id=check.name, marks=exempt(check)) for check in CHECKS])
def test_unicorn_conforms(check, processor, conform):
    conform(check, processor)


@pytest.mark.parametrize("sets_rf", [False])
def test_unicorn_conforms_without_rf(sets_rf, conform):
    nothing = Boot("nothing", "nothing", [], lambda save, gprs: None)
    with UnicornProcessor(nothing, 1 << 20, output=print, sets_rf=sets_rf) as processor:
        assert processor.run(None) is Outcome.RESET
        for check in CHECKS:
            if check.name.startswith("inject") or "own" in check.name:
                conform(check, processor)
