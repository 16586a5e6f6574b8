import gc
import mmap

import pytest

from trapline.arch.vectors import Vector
from trapline.processors.unicorn import binding
from trapline.processors.unicorn.binding import Binding
from trapline.processors.unicorn.engine import Engine
from trapline.processors.unicorn.hooks import Hooks
from trapline.processors.unicorn.stops import Stop

MEMORY = 1 << 20


class Bus:
    """Ports and memory-mapped registers that note what is asked of them."""

    def __init__(self):
        self.seen = []
        self.permitted = True
        self.error = None

    def permits(self, port, size):
        return self.permitted

    def port_read(self, port, size):
        self.seen.append(("in", port, size))
        return 0x12

    def port_write(self, port, size, value):
        if self.error is not None:
            raise self.error
        self.seen.append(("out", port, size, value))

    def mmio_read(self, gpa, size):
        self.seen.append(("load", gpa, size))
        return 0x55

    def mmio_write(self, gpa, size, value):
        self.seen.append(("store", gpa, size, value))


class Flat(Engine):
    """An engine with its RAM, and code of 64 bits without paging, outside any guest."""

    def __init__(self, bus, code):
        self.binding = Binding()
        self.ram = mmap.mmap(-1, MEMORY)
        self.binding.map_memory(0, self.ram)
        super().__init__(self.binding, Hooks(self.binding, bus, lambda gpa, size: None), MEMORY)
        self.ram[0x1000 : 0x1000 + len(code)] = code
        self.binding.context_bytes[:] = self._host
        self.context = self.binding.context
        self.context.rip = 0x1000


@pytest.fixture
def bus():
    return Bus()


@pytest.fixture
def flat(bus):
    """Return a function that makes an engine with code."""
    return lambda code: Flat(bus, code)


def test_ports_reach_the_bus(flat, bus):
    one = flat(b"\xe4\x71\xe6\x80\xf4")  # IN AL, 0x71; OUT 0x80, AL; HLT
    one.resume()
    assert bus.seen == [("in", 0x71, 1), ("out", 0x80, 1, 0x12)]


def test_what_is_not_ram_is_the_bus(flat, bus):
    one = flat(b"\x8b\x04\x25\x00\x00\x00\x40\x89\x04\x25\x08\x00\x00\x40\xf4")
    one.resume()
    assert bus.seen == [("load", 0x4000_0000, 4), ("store", 0x4000_0008, 4, 0x55)]


def test_a_refused_port_leaves_everything_as_it_was(flat, bus):
    bus.permitted = False
    one = flat(b"\xe6\x80\xff\xc1\x89\x0c\x25\x00\x20\x00\x00\xf4")  # OUT; INC ECX; MOV [0x2000], ECX
    assert one.resume() == Stop.PORT
    assert (one.context.rip, one.context.gprs[1], one.ram[0x2000]) == (0x1000, 0, 0)
    bus.permitted = True
    one.resume()
    assert (one.context.gprs[1], one.ram[0x2000]) == (1, 1)


def test_an_error_in_a_callback_comes_out_and_only_once(flat, bus):
    one = flat(b"\xe6\x80\xf4")
    bus.error = ZeroDivisionError("here")
    with pytest.raises(ZeroDivisionError, match="here"):
        one.resume()
    bus.error = None
    one.context.rip = 0x1000
    one.resume()
    assert bus.seen == [("out", 0x80, 1, 0)]


def test_an_exception_is_an_event(flat):
    assert flat(b"\x31\xc9\xf7\xf1").resume() == Vector.DE  # XOR ECX, ECX; DIV ECX


def test_cpuid_keeps_the_context(flat):
    one = flat(b"\xf4")
    one.context.gprs[3] = 7
    before = bytes(one.binding.context_bytes)
    assert one.cpuid(0, 0)[0] > 0
    assert one.cpuid(0x8000_0000, 0)[0] > 0x8000_0000
    assert bytes(one.binding.context_bytes) == before


def test_a_stop_before_the_run_does_no_harm(flat, bus):
    one = flat(b"\xe6\x80\xf4")
    one.binding.stop()
    one.resume()
    assert bus.seen in ([], [("out", 0x80, 1, 0)])


def test_the_context_is_freed_with_the_last_view_of_it(flat, monkeypatch):
    freed = []
    monkeypatch.setattr(binding.uclib, "uc_context_free", lambda context: freed.append(context.value))
    one = flat(b"\xf4")
    address, gprs = one.binding._allocated.value, one.context.gprs
    del one
    gc.collect()
    assert not freed
    assert gprs[0] is not None
    del gprs
    gc.collect()
    assert freed == [address]


@pytest.mark.parametrize("base", [0, 0x1000])
def test_one_instruction_wherever_its_segment_begins(flat, base):
    one = flat(b"\x0f\x22\xc0\xeb\xfe")  # MOV CR0, RAX; JMP to itself
    one.context.segments[1].base, one.context.rip = base, 0x1000 - base
    one.context.gprs[0] = one.context.cr0
    assert one.step() == Stop.ASKED
    assert one.context.rip == 0x1003 - base
