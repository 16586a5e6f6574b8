"""What holds for every test."""

import signal


def pytest_configure():
    """Hear Ctrl-C, and let the programs that tests start hear it: a shell's background jobs begin deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
