import pytest

from trapline.testing.conformance import run


@pytest.fixture
def conform():
    """Return a function that runs a check, or says why the processor is not asked."""

    def conform(check, processor):
        why_not = check.why_not(processor.capabilities)
        if why_not is not None:
            pytest.skip(why_not)
        run(check, processor)

    return conform
