"""CPUID shows what the CPU has."""

import pytest

from trapline.machine.boot import Boot
from trapline.processors.unicorn.processor import UnicornProcessor


@pytest.fixture(scope="module")
def processor():
    nothing = Boot("nothing", "nothing", [], lambda save, gprs: None)
    with UnicornProcessor(nothing, 1 << 20, output=print) as processor:
        yield processor


def test_the_areas_of_xsave_are_those_of_the_registers(processor):
    """Without AVX there is no area for YMM, and what is enabled needs no more than x87 and SSE."""
    avx = processor.cpuid(1, 0)[2] >> 28 & 1
    assert processor.cpuid(0xD, 0)[:3:2] == ((0b111, 0x340) if avx else (0b011, 0x240))
    assert any(processor.cpuid(0xD, 2)) == bool(avx)


def test_what_it_models(processor):
    assert processor.cpuid(0, 0)[1:] == tuple(int.from_bytes(part, "little") for part in (b"Auth", b"cAMD", b"enti"))
    assert processor.signature == processor.cpuid(1, 0)[0] == 0x800F12


def test_what_is_remembered_is_bounded(processor):
    """A guest can ask for 2^64 pairs of function and subfunction."""
    first = processor.cpuid(0xD, 0)
    for subleaf in range(2000):
        processor.cpuid(0xD, subleaf)
    assert processor.core.cpuid.cache_info().currsize <= 256
    assert processor.cpuid(0xD, 0) == first
