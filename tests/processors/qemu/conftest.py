import contextlib
import struct

import iced_x86 as iced
import pytest

from tests.processors.qemu.scripted_qemu import FACTS, Block, Qemu
from trapline.arch.layout import leaves
from trapline.processors.qemu import firmware
from trapline.processors.qemu import machine as machine_module
from trapline.processors.qemu.layout import SIZE, SharedMemory
from trapline.processors.qemu.machine import QemuMachine
from trapline.processors.qemu.processor import QemuProcessor
from trapline.processors.qemu.ram import Ram

BIOS_SIZE = 0x20000
RESET_AT = BIOS_SIZE - 16
HOLE = (0x1C000, 0x1C100)
"""The only zeros of the made-up BIOS."""


def make_bios(size=BIOS_SIZE, hole=HOLE, first=b"\xea\x5b\xe0\x00\xf0"):
    """A BIOS of numbered bytes without a zero, a hole, and a far jump to F000:E05B at the reset vector."""
    image = bytearray(1 + place * 7 % 255 for place in range(size))
    image[hole[0] : hole[1]] = bytes(hole[1] - hole[0])
    image[size - 16 : size - 16 + len(first)] = first
    return bytes(image)


def make_uefi(size=0x3C000, hole=(0x2C123, 0x3B000), first=b"\x90\x90\xe9\x5b\xff"):
    """UEFI firmware of the size of a flash chip: like the BIOS, but with a volume's signature and a hole of ones."""
    image = bytearray(1 + place * 7 % 253 for place in range(size))
    image[0x28:0x2C] = b"_FVH"
    image[hole[0] : hole[1]] = b"\xff" * (hole[1] - hole[0])
    image[size - 16 : size - 16 + len(first)] = first
    return bytes(image)


@pytest.fixture
def uefi():
    return make_uefi()


@pytest.fixture
def bios():
    return make_bios()


@pytest.fixture
def bios_with():
    return make_bios


@pytest.fixture
def memory():
    """The shared memory, all zero."""
    return memoryview(bytearray(SIZE))


@pytest.fixture
def shared(memory):
    return SharedMemory(memory)


@pytest.fixture
def decode():
    """Return a function that decodes machine code completely: no byte may be left that is no instruction."""

    def decode(code, bits, address):
        instructions = list(iced.Decoder(bits, code, ip=address))
        assert all(not instruction.is_invalid for instruction in instructions)
        assert sum(instruction.len for instruction in instructions) == len(code)
        return instructions

    return decode


@pytest.fixture
def until_jump():
    """Return a function that decodes code up to its far or indirect jump."""

    def until_jump(code, bits, address):
        found = []
        for instruction in iced.Decoder(bits, code, ip=address):
            assert not instruction.is_invalid
            found.append(instruction)
            if instruction.mnemonic == iced.Mnemonic.JMP and not instruction.is_jmp_short_or_near:
                return found
        raise AssertionError("the code does not end")

    return until_jump


@pytest.fixture
def fields():
    """Return a function that maps every declared byte of a structure to (path, offset, size)."""

    def fields(structure):
        found = {}
        for path, offset, size, _ in leaves(structure()):
            if "reserved_" not in path:
                for byte in range(offset, offset + size):
                    found[byte] = (path, offset, size)
        return found

    return fields


@pytest.fixture
def quad():
    """Return a function that reads the 64-bit words of a buffer."""
    return lambda buffer, at: struct.unpack_from("<Q", buffer, at)[0]


@pytest.fixture
def start(memory, bios):
    """Return a function that starts a machine which plays a script."""
    with contextlib.ExitStack() as closing:

        def start(*script, accelerator="tcg", isolated=False, facts=FACTS, options=(), bios=bios):
            qemu = Qemu(script, memory)
            qemu.command += options
            wrapped = firmware.wrap(bios, unlock_svm=accelerator == "tcg", flash=len(bios) % 0x10000 != 0)
            qmp = type(
                "Qmp",
                (),
                {
                    "__init__": lambda self, connection: None,
                    "command": lambda self, name: qemu.nmi.set(),
                    "ask_human": lambda self, line: "",
                    "run_state": lambda self: None,
                    "has_memory_at": lambda self, address, slot, function: True,
                    "woke_up": lambda self: qemu.woke_up,
                    "human_command": lambda self, line: qemu.devices,
                    "created_devices": lambda self: [],
                    "shutdown_reason": lambda self: qemu.reason,
                    "version": lambda self: (7, 2, 22),
                    "close": lambda self: None,
                },
            )
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(machine_module, "Qmp", qmp)
                machine = QemuMachine(
                    qemu,
                    wrapped,
                    Block(),
                    Ram(qemu.ram, "pc", bios),
                    accelerator=accelerator,
                    isolated=isolated,
                    facts=facts,
                )
                processor = QemuProcessor(machine)
            closing.enter_context(processor)
            qemu.start()
            return processor, qemu

        yield start
