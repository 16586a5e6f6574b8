"""How the work of a function grows with its input, in executed bytecodes: the same on every machine."""

import sys


def bytecodes(function, *arguments):
    """Return how many bytecodes of Python a call executes, and those it calls."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


def growth(make, function, size):
    """Return how many times the work of `function(make(size))` a doubled size takes; 2 is linear, 4 quadratic."""
    small, large = make(size), make(2 * size)
    return bytecodes(function, large) / bytecodes(function, small)
