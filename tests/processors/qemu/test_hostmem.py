import ctypes
import mmap
import os
import subprocess
import sys

import pytest

from trapline.errors import FaultError, ProcessorError
from trapline.processors.qemu.hostmem import ProcessMemory

SIZE = 3 << 20
TOKEN = b"the token"


PAGE = mmap.PAGESIZE


@pytest.fixture
def block():
    """An anonymous block of this very process between two pages that nobody may touch, as QEMU's RAM has them."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(-1, SIZE + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        inside = (ctypes.c_char * len(memory)).from_buffer(memory)
        start = ctypes.addressof(inside)
        del inside
        for guard in (start, start + PAGE + SIZE):
            assert libc.mprotect(ctypes.c_void_p(guard), PAGE, 0) == 0
        with memoryview(memory) as whole:
            inner = whole[PAGE : PAGE + SIZE]
            yield inner
            inner.release()


def test_a_block_is_found_read_and_written(block):
    block[0x800 : 0x800 + len(TOKEN)] = TOKEN
    memory = ProcessMemory(os.getpid(), SIZE)
    memory.locate(0x800, TOKEN)
    assert len(memory) == SIZE
    assert memory[0x800 : 0x800 + len(TOKEN)] == TOKEN
    memory[0x1000:0x1003] = b"abc"
    assert block[0x1000:0x1003] == b"abc"
    memory.close()
    memory.close()
    with pytest.raises(FaultError, match="cannot be read"):
        memory[0:4]
    with pytest.raises(FaultError, match="cannot be written"):
        memory[0:1] = b"x"


CHILD = """
import ctypes, mmap, sys
size, page, token = int(sys.argv[1]), mmap.PAGESIZE, sys.argv[2].encode()
memory = mmap.mmap(-1, size + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
start = ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))
for guard in (start, start + page + size):
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), page, 0)
memory[page : page + len(token)] = token
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_memory_of_a_process_that_has_ended_is_not_empty_bytes():
    command = [sys.executable, "-c", CHILD, str(SIZE), TOKEN.decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        memory = ProcessMemory(child.pid, SIZE)
        memory.locate(0, TOKEN)
        assert memory[0 : len(TOKEN)] == TOKEN
    with pytest.raises(FaultError, match="QEMU has ended"):
        memory[0:4]
    with pytest.raises(FaultError, match="QEMU has ended"):
        memory[0:1] = b"x"
    memory.close()


def test_a_block_without_its_token_is_not_found():
    memory = ProcessMemory(os.getpid(), 5 << 20)
    with pytest.raises(ProcessorError, match="not found"):
        memory.locate(0, TOKEN)
    memory.close()


def test_a_process_that_is_gone_is_told():
    memory = ProcessMemory(2**22 + 1, SIZE)
    with pytest.raises(ProcessorError, match="cannot be read"):
        memory.locate(0, TOKEN)
