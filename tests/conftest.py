"""The setup of all tests."""

import os
import signal

from hypothesis import settings

settings.register_profile("house", deadline=None)  # a busy machine is not a failure
settings.load_profile("house")

pytest_plugins = ["pytester"]


def pytest_configure():
    """Handle Ctrl-C, also in programs that tests start: a shell's background jobs start with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start the program hundreds of times
    os.environ.pop("PYTHONUNBUFFERED", None)  # and what a pipe is told is buffered, as it is by default
