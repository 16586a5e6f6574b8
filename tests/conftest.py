"""What holds for every test."""

import signal

from hypothesis import settings

settings.register_profile("house", deadline=None)  # a busy machine is not a failure
settings.load_profile("house")

pytest_plugins = ["pytester"]


def pytest_configure():
    """Hear Ctrl-C, and let the programs that tests start hear it: a shell's background jobs begin deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
