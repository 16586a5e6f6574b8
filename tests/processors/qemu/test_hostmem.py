import mmap
import os

import pytest

from trapline.errors import ProcessorError
from trapline.processors.qemu.hostmem import ProcessMemory

SIZE = 3 << 20
TOKEN = b"the token"


@pytest.fixture
def block():
    """An anonymous mapping of this very process, with nothing mapped beside it that it could grow into."""
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        yield memory


def test_a_block_is_found_read_and_written(block):
    block[0x800 : 0x800 + len(TOKEN)] = TOKEN
    memory = ProcessMemory(os.getpid(), SIZE)
    try:
        memory.locate(0x800, TOKEN)
    except ProcessorError:
        pytest.skip("the kernel joined the block with a neighbour")
    assert len(memory) == SIZE
    assert memory[0x800 : 0x800 + len(TOKEN)] == TOKEN
    memory[0x1000:0x1003] = b"abc"
    assert block[0x1000:0x1003] == b"abc"
    memory.close()
    memory.close()
    with pytest.raises(LookupError, match="cannot be read"):
        memory[0:4]
    with pytest.raises(LookupError, match="cannot be written"):
        memory[0:1] = b"x"


def test_a_block_without_its_token_is_not_found():
    memory = ProcessMemory(os.getpid(), 5 << 20)
    with pytest.raises(ProcessorError, match="not found"):
        memory.locate(0, TOKEN)
    memory.close()


def test_a_process_that_is_gone_is_told():
    memory = ProcessMemory(2**22 + 1, SIZE)
    with pytest.raises(ProcessorError, match="cannot be read"):
        memory.locate(0, TOKEN)
