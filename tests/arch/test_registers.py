from trapline.arch.layout import offset_of, size_of
from trapline.arch.registers import CR0, CR4, DR6, DR7, EFER, RFLAGS, Gprs


def test_gprs_stand_in_the_order_of_their_numbers():
    order = [
        "rax",
        "rcx",
        "rdx",
        "rbx",
        "rsp",
        "rbp",
        "rsi",
        "rdi",
        *(f"r{number}" for number in range(8, 16)),
    ]
    assert [offset_of(Gprs, name) for name in order] == list(range(0, 0x80, 8))
    assert size_of(Gprs) == 0x80


def test_well_known_values():
    assert CR0.PG | CR0.PE == 0x80000001
    assert CR0.CD | CR0.NW | CR0.ET == 0x60000010
    assert CR4.PAE == 0x20
    assert CR4.LA57 == 0x1000
    assert EFER.LME | EFER.LMA | EFER.SCE == 0x501
    assert EFER.SVME == 0x1000
    assert RFLAGS.IF | RFLAGS.ALWAYS_ONE == 0x202
    assert RFLAGS.RF == 0x10000
    assert RFLAGS.ID == 0x200000
    assert DR6.BS == 0x4000
    assert DR7.FIXED == 0x400
