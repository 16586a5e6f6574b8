import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.errors import ProcessorError, ProcessorLost
from trapline.processors.qemu.gdb import CpuState, GdbClient, Stop, decode, encode, read_registers, read_stop

REGISTERS = """\r
CPU#0\r
{rip} RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM={smm} HLT=0\r
ES =0010 0000000000000000 ffffffff 00c09300 DPL=0 DS   [-WA]\r
CS ={cs}\r
SS =0010 0000000000000000 ffffffff 00c09300 DPL=0 DS   [-WA]\r
CR0=80010031 CR2=0000000000000000 CR3=000000000000b000 CR4=00000020\r
DR6=00000000ffff0ff0 DR7=0000000000000400\r
EFER=0000000000001500\r
"""
LONG = "0028 0000000000001000 ffffffff 00a09b00 DPL=0 CS64 [-RA]"
FLAT = "0008 00001000 ffffffff 00c09b00 DPL=0 CS32 [-RA]"


@pytest.fixture
def stub():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield GdbClient(ours), theirs


def test_a_packet_has_its_checksum():
    assert encode(b"g") == b"$g#67"
    assert encode(b"M4000,1:cc") == b"$M4000,1:cc#6e"


@given(st.binary().filter(lambda data: not set(b"$#") & set(data)), st.binary().filter(lambda data: b"$" not in data))
def test_what_is_encoded_is_decoded(payload, rest):
    packet = encode(payload)
    assert decode(b"+" + packet + rest) == (payload, rest)
    assert decode(b"+" + packet[:-1])[0] is None


@pytest.mark.parametrize(
    ("payload", "stop"),
    [
        (b"T05thread:01;", Stop(True, None)),
        (b"T05thread:01;watch:0000000000008002;", Stop(True, (0x8002, False))),
        (b"T05thread:01;awatch:0000000000008002;", Stop(True, (0x8002, True))),
        (b"T02thread:01;", Stop(False, None)),
        (b"", Stop(False, None)),
    ],
)
def test_stop_replies(payload, stop):
    assert read_stop(payload) == stop


@pytest.mark.parametrize(
    ("rip", "cs", "address"),
    [
        ("RIP=ffffffff81000000", LONG, 0xFFFF_FFFF_8100_0000),
        ("EIP=00000010", FLAT, 0x1010),
        ("EIP=fffff010", FLAT, 0x10),
        ("EIP=0000fff0", "f000 ffff0000 0000ffff 00009b00", 0xFFFF_FFF0),
    ],
)
def test_where_the_cpu_is(rip, cs, address):
    assert read_registers(REGISTERS.format(rip=rip, cs=cs, smm=0)) == CpuState(address, 0xB000, 0x1500, False, False)
    assert read_registers(REGISTERS.format(rip=rip, cs=cs, smm=1)).in_smm


def test_another_form_of_registers_is_an_error():
    with pytest.raises(ProcessorError, match="not understood"):
        read_registers("unknown command")


def test_a_command_gets_its_answer(stub):
    client, theirs = stub
    theirs.send(b"+$OK#9a")
    assert client.command(b"Z0,10,1") == b"OK"
    assert theirs.recv(100) == encode(b"Z0,10,1")


def test_packets_may_arrive_in_pieces_and_together(stub):
    client, theirs = stub
    theirs.send(b"+$90#69+$O")
    assert client.poll() == b"90"
    assert client.poll() is None
    theirs.send(b"K#9a")
    assert client.receive() == b"OK"
    theirs.send(b"+")
    assert client.poll() is None


def test_the_output_of_a_monitor_command_comes_in_pieces(stub):
    client, theirs = stub
    theirs.send(encode(b"O" + b"EFER=".hex().encode()) + encode(b"O" + b"1500\r\n".hex().encode()) + encode(b"OK"))
    assert client.monitor("info registers") == "EFER=1500\r\n"
    assert theirs.recv(100) == encode(b"qRcmd,696e666f20726567697374657273")
    theirs.send(encode(b"E01"))
    with pytest.raises(ProcessorError, match="refuses 'info'"):
        client.monitor("info")


def test_stopping_a_machine_takes_its_stop_reply(stub):
    client, theirs = stub
    theirs.send(encode(b"T02thread:01;"))
    client.interrupt()
    assert theirs.recv(100) == b"\x03"
    assert client.poll() is None


def test_a_stub_that_hangs_up_while_the_guest_runs_has_nothing_to_tell(stub):
    client, theirs = stub
    theirs.close()
    assert client.poll() is None


def test_a_stub_that_hangs_up_is_lost(stub):
    client, theirs = stub
    theirs.close()
    with pytest.raises(ProcessorLost, match="QEMU ended"):
        client.receive()
    with pytest.raises(ProcessorLost, match="QEMU ended"):
        client.command(b"c")


def test_a_stub_that_is_silent_is_lost(stub, monkeypatch):
    client, _ = stub
    monkeypatch.setattr("trapline.processors.qemu.gdb._PATIENCE", 0.01)
    with pytest.raises(ProcessorLost, match="did not answer"):
        client.command(b"g")


def test_an_answer_is_waited_for_so_long(stub):
    client, theirs = stub
    theirs.sendall(b"+")
    assert client.receive_within(0.01) is None
    theirs.sendall(b"+" + encode(b"T05") + encode(b"OK"))
    assert [client.receive_within(0), client.receive_within(0), client.receive_within(0)] == [b"T05", b"OK", None]
    theirs.close()
    with pytest.raises(ProcessorLost):
        client.receive_within(5)
