"""Interrupts at chosen moments."""

import contextlib
import signal
import subprocess
import sys


def at_each_start(monkeypatch):
    """Let SIGINT come as a process is started, before anybody has its number; return the list of the numbers."""
    numbers = []
    start = subprocess.Popen

    def interrupted(*arguments, **options):
        process = start(*arguments, **options)
        numbers.append(process.pid)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    return numbers


@contextlib.contextmanager
def after_lines(module, lines, interrupt):
    """Call `interrupt` after so many lines of a module, if there are so many, once."""
    left = lines

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename != module.__file__:
            return None
        left -= event == "line"
        if left < 0:
            sys.settrace(None)
            interrupt()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
