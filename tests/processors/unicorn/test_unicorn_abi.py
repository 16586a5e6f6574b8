import ctypes
import struct

import pytest

from trapline.arch.layout import offset_of, size_of
from trapline.errors import ProcessorError
from trapline.processors.unicorn import unicorn_abi
from trapline.processors.unicorn.uc_context import Context
from trapline.processors.unicorn.unicorn_abi import check_size, check_version, find_emu_count, find_no_exit_request

BODY = size_of(Context) - offset_of(Context, "gprs")


def test_the_installed_version_is_known():
    check_version()


def test_an_unknown_version_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(unicorn_abi, "version", lambda name: "2.9.9")
    with pytest.raises(ProcessorError, match=r"^unicorn 2\.9\.9 may keep its CPU state in another way: pip install"):
        check_version()


def test_a_context_of_another_size_is_refused_in_words():
    check_size(size_of(Context))
    with pytest.raises(ProcessorError, match=rf"keeps 4711 bytes of CPU state, not {size_of(Context)}: pip install"):
        check_size(4711)


def engine_with(*places, flag=0):
    """Bytes like those of `struct uc_struct`, with the flag's neighbours at some places."""
    memory = (ctypes.c_uint8 * 0x1000)(*([0xAA] * 0x1000))
    around = struct.pack("<ii", 1, BODY) + bytes(4) + bytes(8) + b"\x00\x01" + bytes((flag, 1))
    for place in places:
        memory[place : place + len(around)] = around
    return memory, len(around) - 2


@pytest.mark.parametrize("place", [0, 0x123, 0xF00])
def test_the_flag_is_found_by_its_neighbours(place):
    memory, offset = engine_with(place)
    flag = find_no_exit_request(ctypes.c_void_p(ctypes.addressof(memory)), size_of(Context))
    flag.value = 1
    assert memory[place + offset] == 1


@pytest.mark.parametrize("places", [(), (0x100, 0x200)])
def test_a_flag_that_is_not_found_once_is_refused(places):
    memory, _ = engine_with(*places)
    with pytest.raises(ProcessorError, match="cannot be made to stop between two instructions: pip install"):
        find_no_exit_request(ctypes.c_void_p(ctypes.addressof(memory)), size_of(Context))


@pytest.mark.parametrize("places", [(0x80,), (), (0x100, 0x200)])
def test_the_count_is_found_by_its_value(places):
    memory = (ctypes.c_uint8 * 0x1000)()
    for place in places:
        memory[place : place + 8] = struct.pack("<Q", 0x5EED_0000_1234_5678)
    handle = ctypes.c_void_p(ctypes.addressof(memory))
    if len(places) == 1:
        find_emu_count(handle, 0x5EED_0000_1234_5678).value = 7
        assert memory[places[0]] == 7
    else:
        with pytest.raises(ProcessorError, match="cannot be made to stop after each instruction: pip install"):
            find_emu_count(handle, 0x5EED_0000_1234_5678)
