"""The stub: one packet in, replies out."""

import struct
import xml.etree.ElementTree as ET

import pytest

from trapline.api import Machine
from trapline.arch.vectors import FORCEABLE, Vector, bits
from trapline.debugger.gdb import signals, target_xml
from trapline.debugger.gdb.packets import escape, unescape
from trapline.debugger.gdb.stub import End, Stub
from trapline.debugger.target import Target
from trapline.processors.unicorn.processor import UnicornProcessor
from trapline.trace.exception_record import Outcome

LOOP = bytes.fromhex("b90300 e80400 e2fb 0f0b 40 c3 f4")
"""`mov cx, 3; again: call add; loop again; ud2; add: inc ax; ret; hlt`, in real mode."""
UD2, ADD, HLT = 0x7C08, 0x7C0A, 0x7C0C
OFF = bytes.fromhex("b0fe e664 f4")
EAX, ECX, EIP = 0, 1, 8


class Session:
    """A client of a stub; the guest runs in this thread."""

    def __init__(self, machine):
        self.target = Target(machine)
        self.stub = Stub(self.target, attached=True, exit_code=lambda: machine.result().exit_code)
        self.end = None
        self.said = ""

    def __call__(self, payload):
        """Send a packet and return the last reply."""
        answer = self.stub.handle(payload if isinstance(payload, bytes) else payload.encode())
        replies = [*answer.replies]
        if answer.work is not None:
            answer = self.stub.stopped(answer.work())
            replies += answer.replies
        self.end = answer.end
        self.said = "".join(bytes.fromhex(each[1:].decode()).decode() for each in replies[:-1])
        return replies[-1].decode("latin-1") if replies else None

    def monitor(self, text):
        """Execute a command of `monitor` and return what it prints."""
        assert self(b"qRcmd," + text.encode().hex().encode()) == "OK"
        return self.said


@pytest.fixture
def session():
    """Return a function that begins a session with code for real mode, or with another guest."""
    machines = []

    def session(guest=LOOP, **options):
        if isinstance(guest, bytes):
            options.setdefault("entry_mode", 16)
        machines.append(Machine(guest, **options))
        return Session(machines[-1])

    yield session
    for machine in machines:
        machine.close()


def number(digits):
    """The value of a register in a reply."""
    return int.from_bytes(bytes.fromhex(digits), "little")


def test_every_vector_has_a_signal_and_comes_back():
    for vector in bits(FORCEABLE):
        assert signals.vectors_of([signals.of_vector(vector)]) >> vector & 1
    assert signals.vectors_of([signals.ILL]) == 1 << Vector.UD


@pytest.mark.parametrize("size", [16, 32, 64])
def test_descriptions_are_of_their_layout(size):
    layout = target_xml.layout(size)
    tree = ET.fromstring(layout.xml)
    found = [(int(each.get("regnum")), each.get("name"), int(each.get("bitsize"))) for each in tree.iter("reg")]
    assert sorted(found) == [(number, row.name, row.bits) for number, row in enumerate(layout.rows)]
    assert layout.rows[: len(layout.together)] == layout.together
    assert len(set(found)) == len(found)
    types = {each.get("id") for each in tree.iter("flags")}
    assert {each.get("type") for each in tree.iter("reg") if each.get("type").endswith("_t")} == types


def test_a_description_is_read_in_parts(session):
    client = session()
    first, rest = client("qXfer:features:read:target.xml:0,100"), client("qXfer:features:read:target.xml:100,4000")
    assert (first[0], rest[0]) == ("m", "l")
    assert (first[1:] + rest[1:]).encode() == escape(target_xml.layout(16).xml)
    assert client("qXfer:features:read:other.xml:0,100") == "E00"


def test_registers_are_read_and_written_one_by_one_and_together(session):
    client = session()
    assert number(client("p8")) == 0x7C00
    assert client("P1=78563412") == "OK"
    assert client.target.cpu.registers.rcx == 0x12345678
    everything = client("g")
    assert number(everything[8:16]) == 0x12345678
    assert client("G" + "01000000" + everything[8:]) == "OK"
    assert (client.target.cpu.registers.rax, client.target.cpu.registers.rcx) == (1, 0x12345678)
    assert "x" in everything  # there is no exception
    rows = {row.name: number for number, row in enumerate(target_xml.layout(16).rows)}
    assert (number(client(f"p{rows['mxcsr']:x}")), number(client(f"p{rows['ftag']:x}"))) == (0x1F80, 0x5555)
    assert client(f"P{rows['xmm7']:x}={'01' * 16}") == "OK"
    assert client(f"p{rows['xmm7']:x}") == "01" * 16
    assert client(f"P{rows['mxcsr']:x}=00000080").startswith("E")
    for wrong in ("pffff", "p", "P1=00", "P1", "G00", "Pff=00"):
        assert client(wrong).startswith("E")


def test_rip_is_linear_and_ip_is_the_guests(session):
    client = session()
    client.target.cpu.registers.cs.base = 0x7000
    client.target.cpu.registers.rip = 0xC00
    rows = {row.name: place for place, row in enumerate(target_xml.layout(16).rows)}
    assert number(client("p8")) == 0x7C00
    assert number(client(f"p{rows['ip']:x}")) == 0xC00
    assert client("P8=067c0000") == "OK"
    assert client.target.cpu.registers.rip == 0xC06


def test_memory_is_read_and_written(session):
    client = session()
    assert client("m7c00,4") == LOOP[:4].hex()
    assert client("M600,2:0102") == "OK"
    assert client(b"X602,3:" + escape(b"}#$")) == "OK"
    assert client("m600,5") == "01027d2324"
    assert client("x600,5") == "b" + escape(b"\1\2}#$").decode("latin-1")
    assert client("X600,0:") == "OK"
    assert client("M600,3:0102") == "E01"
    assert client("mfffffffffffffff0,8") == "E14"
    assert client("Mfffffffffffffff0,1:00") == "E14"
    assert len(client("m0,ffffff")) <= 0x4000


def test_physical_memory(session):
    client = session("sample:pf")
    client.target.catch("pf")
    client("c")
    code = client.target.cpu.registers.rip
    assert client("qqemu.PhyMemMode") == "0"
    assert client("m80000123,4") == "E14"
    assert client("Qqemu.PhyMemMode:1") == "OK"
    assert bytes.fromhex(client(f"m{code:x},2")) == client.target.machine.memory.read(code, 2)
    assert client.monitor("physical off") == "gdb's addresses are linear\n"


def test_a_breakpoint_stops_and_says_so(session):
    client = session()
    assert client("Z0,7c0a,1") == "OK"
    assert client("vCont;c") == "T05thread:1;"  # a client that does not know swbreak
    client("qSupported:swbreak+;hwbreak+")
    assert client("c") == "T05swbreak:;thread:1;"
    assert client("Z1,7c0a,1") == client("z0,7c0a,1") == "OK"
    assert client("c") == "T05hwbreak:;thread:1;"
    assert client("z1,7c0a,1") == "OK"
    assert not list(client.target.machine.breakpoints)
    assert client("Z3,600,1") == ""


def test_a_watchpoint_has_its_address(session):
    client = session(bytes.fromhex("c606000601 a00006 f4"))  # mov byte [0x600], 1; mov al, [0x600]; hlt
    assert client("Z4,600,1") == client("Z2,600,1") == "OK"
    assert client("c") in ("T05watch:600;thread:1;", "T05awatch:600;thread:1;")
    assert client("z2,600,1") == "OK"
    assert client("c") == "T05awatch:600;thread:1;"
    assert client("z4,600,1") == "OK"
    assert not list(client.target.machine.watchpoints)
    assert "1,048,576 bytes" in client("Z2,600,ffffffff")


def test_breakpoints_that_gdb_has_cut_to_32_bits_are_in_the_highest_2_gib_too(session):
    client = session()
    assert client("Z0,80001000,1") == "OK"
    assert list(client.target.machine.breakpoints) == [0x8000_1000, 0xFFFF_FFFF_8000_1000]
    assert client("z0,80001000,1") == "OK"
    assert not list(client.target.machine.breakpoints)


@pytest.mark.parametrize(
    ("packet", "landed"), [("C04", HLT), ("vCont;C04:1", HLT), ("vCont;S04:1;c", HLT), ("s", UD2), ("vCont;s:1;c", UD2)]
)
def test_the_signal_of_an_exception_delivers_it_and_none_discards_it(session, packet, landed):
    client = session()
    client.monitor("catch ud")
    assert client("c") == "T04thread:1;"
    assert "#UD at 0000:7c08" in client.said
    client.target.machine.memory.write(4 * Vector.UD, HLT.to_bytes(4, "little"))
    client.target.machine.breakpoints.add(landed)
    client(packet)
    assert client.target.cpu.address in (landed, HLT + 1)
    assert client.target.machine.exceptions[0].outcome.name == ("FORWARDED" if landed == HLT else "DISCARDED")


def test_the_signal_of_another_exception_is_refused(session):
    client = session()
    client.monitor("catch ud")
    client("c")
    assert "monitor inject" in client("C0b")
    assert client("?") == "T04thread:1;"


def test_what_monitor_decides_counts(session):
    client = session()
    client.monitor("catch ud")
    client("c")
    assert client.monitor("discard skip") == ""
    assert client("C04") == "T04thread:1;" or client.target.cpu.address != UD2
    assert "trapline: " in session().monitor("discard")


def test_an_exception_is_injected_in_its_place(session):
    client = session()
    client.monitor("catch ud")
    client("c")
    client.target.machine.memory.write(4 * Vector.GP, HLT.to_bytes(4, "little"))
    assert "trapline: " in client.monitor("inject nmi")
    assert client.monitor("inject gp") == ""
    client("s")
    assert client.target.cpu.address == HLT


def test_signals_that_are_passed_do_not_stop(session):
    client = session()
    client.monitor("catch ud")
    client.target.machine.memory.write(4 * Vector.UD, HLT.to_bytes(4, "little"))
    assert client("QPassSignals:e;4") == "OK"
    assert client("c") == "T11thread:1;"
    assert "halted" in client.said


def test_a_range_is_stepped(session):
    client = session()
    client("s")
    assert client("vCont;r7c03,7c08:1") == "T05thread:1;"
    assert client.target.cpu.address == ADD
    client("Z0,7c06,1")
    client("qSupported:swbreak+")
    assert client("vCont;r7c03,7c0c:1") == "T05swbreak:;thread:1;"


def test_the_exception_as_raw_bytes(session):
    client = session("sample:pf")
    assert client("qXfer:siginfo:read::0,40") == "E01"
    client.target.catch("pf")
    client("c")
    data = unescape(client("qXfer:siginfo:read::0,40")[1:].encode("latin-1"))
    exception = client.target.stop.exception
    assert struct.unpack("<IIIIQQ", data) == (14, exception.error_code, 3, 0, exception.address, 0)


def test_a_shutdown_shows_its_state_and_then_ends(session):
    client = session("sample:no-idt")
    assert client("c") == "T06thread:1;"
    assert "state before the reset" in client.said
    assert "Cause: " in client.monitor("why")
    assert client("p8") != "xxxxxxxx"
    assert (client("c"), client.end) == ("W03", End.EXITED)


def test_a_guest_that_halts_can_be_sent_elsewhere(session):
    client = session(bytes.fromhex("f4 90 f4"))
    assert client("c") == "T11thread:1;"
    assert client("P8=027c0000") == "OK"
    assert client("c") == "T11thread:1;"
    assert client.target.cpu.address == 0x7C03
    assert (client("c"), client.end) == ("W00", End.EXITED)


def test_a_guest_that_ends_is_told(session):
    client = session(OFF)
    assert (client("c"), client.end) == ("W00", End.EXITED)
    for packet in ("g", "m0,10", "Z0,7c00,1"):
        assert client(packet).startswith("E")


def test_the_view_is_stale_after_a_switch_of_modes(session):
    client = session("sample:pf")
    stale = len(target_xml.layout(32).together) - 1
    client("qXfer:features:read:target.xml:0,4000")
    assert client(f"p{stale:x}") == "00"
    client.target.catch("pf")
    client("c")
    assert "executes 64-bit code" in client.said
    assert client(f"p{stale:x}") == "01"
    assert client("qTrapline.Disassemble:7c00,intel")
    client("qXfer:features:read:target.xml:0,4000")
    assert client(f"p{len(target_xml.layout(64).together) - 1:x}") == "00"
    assert client(f"qTrapline.Disassemble:{client.target.cpu.address:x},att") == ""


def test_threads_are_cpus(session):
    client = session()
    assert [
        client(packet) for packet in ("qfThreadInfo", "qsThreadInfo", "qC", "T1", "T2", "Hg1", "Hg7", "qCRC:0,1")
    ] == [*("m1", "l", "QC1", "OK", "E01", "OK", "E01", "")]
    assert bytes.fromhex(client("qThreadExtraInfo,1")) == b"CPU 0, 16-bit code, CPL 0"
    assert [client(f"qThreadExtraInfo,{number}") for number in ("0", "2", "-1")] == ["E01"] * 3


def test_each_cpu_is_a_thread(session):
    client = session("sample:ap-no-nxe", processor="unicorn", exceptions="all")
    client.target.catch("pf")
    assert client("c") == "T0bthread:2;"
    assert " on CPU 1 at 0008:" in client.said
    assert (client("qfThreadInfo"), client("qC")) == ("m1,2", "QC2")
    assert bytes.fromhex(client("qThreadExtraInfo,1")) == b"CPU 0, 64-bit code, CPL 0"
    first, second = (cpu.registers for cpu in client.target.machine.cpus)
    before = first.rip, second.rip
    assert (client("Hg1"), client.target.cpu.number, client("qC")) == ("OK", 0, "QC1")
    assert client("vCont;s:1;c") == "T05thread:1;"
    assert (first.rip == before[0], second.rip) == (False, before[1])
    client.target.release(*client.target.catches)
    assert client("c") == "T06thread:2;"
    assert client("Hg3") == "E01"


@pytest.mark.parametrize(
    ("actions", "outcome"),
    [("s:1;C0b:2;c", Outcome.FORWARDED), ("s:1", Outcome.FORWARDED), ("s:1;c", Outcome.DISCARDED)],
)
def test_a_step_of_another_cpu_leaves_the_exception_to_what_gdb_says_of_its_own(session, actions, outcome):
    client = session("sample:ap-no-nxe", processor="unicorn", exceptions="all")
    client.target.catch("pf")
    assert client("c") == "T0bthread:2;"
    client("Hg1")
    assert client(f"vCont;{actions}") == "T05thread:1;"
    client.target.release(*client.target.catches)
    client("c")
    first = next(record for record in client.target.machine.exceptions if record.vcpu == 1)
    assert (first.vector, first.outcome) == (Vector.PF, outcome)


def test_a_session_ends(session):
    client = session()
    client("Z0,7c0a,1")
    client.monitor("catch ud")
    assert (client("D"), client.end) == ("OK", End.DETACHED)
    assert not list(client.target.machine.breakpoints)
    assert client.target.catches == ()
    assert (client("vKill;1"), client.end) == ("OK", End.KILLED)
    assert (client("k"), client.end) == (None, End.KILLED)


@pytest.mark.parametrize(
    "packet", ["", "!", "R00", "vFile:open:00", "vMustReplyEmpty", "qTStatus", "jThreadsInfo", "\x80"]
)
def test_what_is_not_there_has_an_empty_answer(session, packet):
    assert session()(packet) == ""


def test_commands_of_monitor(session):
    client = session("sample:bad-tss-stack")
    client.monitor("catch ud if cpl == 3")
    assert client.monitor("catch") == "1: ud if cpl == 3\n"
    client("c")
    assert "ud2 always raises #UD" in client.monitor("why")
    assert client.monitor("last") == "no exception was recorded\n"
    assert "6 #UD" in client.monitor("idt")
    assert "<- CS" in client.monitor("gdt")
    assert "RSP0" in client.monitor("tss")
    assert "LDTR is null" in client.monitor("ldt")
    assert "PML4E" in client.monitor("walk $pc")
    assert "PML4E" in client.monitor("walk 0x1000")
    assert "trapline: " in client.monitor("walk nowhere")
    assert client.monitor("dis 0x1000 1").count("\n") == 1
    assert client.monitor("disassemble").startswith("=> ")
    assert client.monitor("backtrace").startswith("#0 ")
    assert "vector          0x6" in client.monitor("registers exception")
    assert "the groups are" in client.monitor("registers colour")
    assert client.monitor("forward") == client.monitor("delete 1") == ""
    assert "no catch has the number 1" in client.monitor("delete 1")
    assert "it may be " in client.monitor("d")
    assert "monitor help" in client.monitor("colour")
    assert client.monitor("").count("\n") > 10
    assert client.monitor("catch pf if colour").startswith("trapline: ")


def test_the_commands_that_load_symbols(session, compiled):
    program = compiled("void _start(void) {}")
    client = session(symbols=[f"{program}@0x1000", str(program)])
    assert client.monitor("symbols") == (
        f'symbol-file "{program}" -o 0x1000\nwith confirm off -- add-symbol-file "{program}" -o 0x0\n'
    )
    assert session().monitor("symbols") == "there are no symbols\n"


def test_text_is_typed_on_the_console(session):
    client = session(
        bytes.fromhex("bafd03 ec a801 74fb baf803 ec a20006 f4")
    )  # wait for a byte from COM1, and store it
    assert client.monitor(r"type A\n") == ""
    client("c")
    assert client("m600,1") == "41"


def test_a_processor_that_refuses_watchpoints_says_why(session, monkeypatch):
    def refuse(self, watched):
        from trapline.errors import UsageError

        raise UsageError("no room for them")

    client = session()
    monkeypatch.setattr(UnicornProcessor, "set_watchpoints", refuse)
    assert client("Z2,600,4") == "E.no room for them"
