"""The names that `import trapline` gives: all there, and nothing heavy with them."""

import subprocess
import sys

import pytest

import trapline


@pytest.mark.parametrize("name", trapline.__all__)
def test_each_name_is_there(name):
    assert getattr(trapline, name) is not None


def test_no_name_is_missing_from_all():
    assert set(trapline.__all__) == {*trapline._HOME, "__version__"}
    assert set(dir(trapline)) == set(trapline.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trapline.nothing  # noqa: B018  # to ask for it is the point


def test_importing_loads_no_other_module_of_ours():
    code = "import sys, trapline; print([name for name in sys.modules if name.startswith('trapline.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
