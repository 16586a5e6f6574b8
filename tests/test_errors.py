import inspect
import re

from trapline import errors
from trapline.errors import (
    GuestImageError,
    LaunchError,
    ProcessorError,
    ProcessorLost,
    TraplineError,
    UsageError,
)


def test_the_tree_in_the_docstring_names_every_class():
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert set(re.findall(r"(?m)^    [│ ]*(?:[├└]── )?([A-Z]\w+)", errors.__doc__)) == classes


def test_exit_codes():
    assert [cls.exit_code for cls in (TraplineError, ProcessorError, LaunchError, ProcessorLost)] == [1] * 4
    assert [cls.exit_code for cls in (UsageError, GuestImageError)] == [2, 2]


def test_a_failed_launch_shows_what_was_run():
    output = "\n".join(f"line {number}" for number in range(100))
    error = LaunchError("QEMU stopped", command=["qemu", "-S"], returncode=1, output=output, tail=2)
    assert str(error) == "QEMU stopped\ncommand: qemu -S\nexit status: 1\noutput:\nline 98\nline 99"
    assert error.command == ("qemu", "-S")


def test_a_launch_that_never_ran_shows_its_message_alone():
    assert str(LaunchError("QEMU is not installed")) == "QEMU is not installed"
