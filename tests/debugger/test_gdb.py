"""Transcripts of Debian's gdb in batch mode, with guests on both processors."""

import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.acceptance.runs import LIMIT
from tests.acceptance.several import ALONE, calling
from tests.programs import build
from tests.programs.kernel import build_kernel
from trapline.api import Machine, run
from trapline.debugger.target import Target

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]
PROCESSORS = ["unicorn", pytest.param("qemu", marks=pytest.mark.qemu)]
STEPS = 1000

BOOT_SECTOR = r"""
asm(".code16\n"
    ".globl _start\n_start: xor %ax, %ax\n mov %ax, %ds\n mov %ax, %ss\n mov $0x7000, %sp\n ljmp $0, $main\n"
    ".globl main\nmain: call helper\n mov $1, %bx\n"
    ".globl spin\nspin: test %bx, %bx\n jnz spin\n"
    "wrong: ud2\n mov $0xfe, %al\n out %al, $0x64\n1: hlt\n jmp 1b\n"
    ".globl helper\nhelper: mov $5, %cx\n2: incw counter\n loop 2b\n ret\n"
    ".globl counter\ncounter: .word 0\n .org 510\n .word 0xaa55\n");
"""
KERNEL_32 = r"""
asm(".section .text.first\n .long 0x1badb002, 0, -0x1badb002\n"
    ".globl _start\n_start: mov $0x80000, %esp\n push $0\n mov %esp, %ebp\n call kernel\n"
    "mov $0xfe, %al\n out %al, $0x64\n1: hlt\n jmp 1b\n .text\n");
struct pair { int first; char second; };
volatile int total;
int add(struct pair *pair, int more) {
    int sum = pair->first + more;
    total += sum;
    return sum;
}
void kernel(void) {
    struct pair pair = {7, 'x'};
    add(&pair, 5);
    add(&pair, 6);
}
"""
FPU = r"""
asm(".section .text.first\n .long 0x1badb002, 0, -0x1badb002\n"
    ".globl _start\n_start: mov %cr4, %eax\n or $0x200, %eax\n mov %eax, %cr4\n"
    "fninit\n fldpi\n fld1\n mov $7, %eax\n movd %eax, %xmm3\n"
    ".globl loaded\nloaded: fistpl whole\n movd %xmm3, word\n"
    ".globl stored\nstored: mov $0xfe, %al\n out %al, $0x64\n1: hlt\n jmp 1b\n .text\n");
volatile int whole, word;
"""
INTERRUPT = """
python
import os, signal, threading
def running(event):
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
gdb.events.cont.connect(running)
end
continue
python gdb.events.cont.disconnect(running)
"""


class Done(NamedTuple):
    """A session that is over."""

    status: int
    out: str
    err: str


@pytest.fixture
def gdb(tmp_path):
    """Return a function that runs a guest in gdb, which executes commands."""

    def gdb(commands, *words):
        script = tmp_path / "commands"
        script.write_text(commands)
        options = f"-nx -batch -x {script}"
        command = [sys.executable, "-m", "trapline", "gdb", *map(str, words), f"--gdb-options={options}"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return gdb


@pytest.fixture(scope="module")
def crashing(tmp_path_factory):
    """The kernel of tests/programs/kernel that loses its IDT and follows a null pointer."""
    if missing := build_kernel.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    return build_kernel.build(tmp_path_factory.mktemp("kernel"), CRASH=1)


@pytest.fixture(scope="module")
def landed(crashing):
    """Where the kernel is so many steps after its first instruction."""
    with Machine(crashing.image, symbols=[str(crashing.symbols)], processor="unicorn") as machine:
        target = Target(machine)
        assert target.cpu.address == machine.resolve("start")
        for _ in range(STEPS):
            target.step()
        return target.cpu.address


def in_order(text, *parts):
    """Check that a text has parts, in this order."""
    place = 0
    for part in parts:
        found = re.compile(part, re.MULTILINE).search(text, place)
        assert found is not None, f"{part!r} is not in:\n{text[place:]}"
        place = found.end()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_kernel_from_its_first_instruction_to_its_triple_fault(gdb, crashing, landed, processor):
    commands = f"""
if $pc != (unsigned long)&start
  break *start
  continue
  delete
end
x/3i $pc
stepi {STEPS}
printf "landed at %#lx\\n", $pc
watch next_page
continue
delete
tbreak traps_start
continue
x/2i $pc
backtrace
continue
backtrace
info locals
print $cpl
set $xmm15.v2_int64[1] = 9
print $xmm15.v2_int64[1]
monitor why
continue
"""
    done = gdb(commands, crashing.image, "--processor", processor, "--symbols", crashing.symbols)
    in_order(
        done.out,
        r"^=> 0x101000 <start>:\tcli",
        r"lgdt 0x1\w+$",  # 32-bit code, while gdb's description is the 64-bit one of the symbols
        rf"^landed at {landed:#x}$",
        r"Hardware watchpoint \d: next_page",
        r"Old value = \d+\nNew value = \d+",
        r"Temporary breakpoint \d, traps_start \(\) at traps.c:\d+",
        r"=> 0xffffffff\w+ <traps_start>:.*\n",
        r"#0  traps_start .*\n#1  0x\w+ in kernel_main \(\) at main.c:",
        r"Program received signal SIGABRT",
        r"#0  0x\w+ in crash \(\) at selftest.c:98\n#1 .* in selftest .*\n#2 .* in kernel_main",
        r"^none = {limit = 0, base = 0}$",
        r"^\$1 = 0\n\$2 = 9$",
        r"exited with code 03",
    )
    in_order(done.err, "^kernel: up$", "state before the reset", "Cause: no handler could be called, since no IDT")
    assert done.status == 3


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_boot_sector(gdb, compiled, processor):
    options = ("-m16", "-fno-pic", "-no-pie", "-Wl,-Ttext=0x7c00", "-Wl,--build-id=none", "-Wl,-e,_start")
    symbols = compiled(BOOT_SECTOR, *options)
    image = symbols.with_suffix(".img")
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", symbols, image], check=True)
    commands = f"""
break helper
continue
x/3i $pc
watch *(short *)&counter
continue
print $cx
delete
tbreak spin
continue
{INTERRUPT}
info symbol $pc
set $ebx = 0
monitor catch ud
continue
x/i $pc
info symbol $pc
print $vector
monitor discard skip
continue
"""
    entry = ["--entry-mode", "16"] if processor == "unicorn" else []
    done = gdb(commands, image, "--processor", processor, "--symbols", symbols, *entry)
    in_order(
        done.out,
        r"^Breakpoint 1, 0x00007c\w\w in helper",
        r"<helper>:\tmov    \$0x5,%cx\n.*incw   0x7c",
        r"Old value = 0\nNew value = 1",
        r"^\$1 = 5$",
        r"^Temporary breakpoint \d+, 0x00007c\w\w in spin",
        r"Program received signal SIGINT",
        r"^spin",
        r"Program received signal SIGILL",
        r"^wrong",
        r"^\$2 = 6$",
        r"exited normally",
    )
    assert done.status == 0


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_kernel_of_32_bits_with_arguments_and_locals(gdb, compiled, processor):
    options = ("-m32", "-g", "-O0", "-fno-pic", "-no-pie", "-fno-stack-protector", "-fcf-protection=none")
    kernel = compiled(KERNEL_32, *options, "-Wl,-Ttext=0x100000", "-Wl,--build-id=none", "-Wl,-e,_start")
    commands = """
break add
continue
backtrace
print *pair
next
info locals
watch total
continue
delete
tbreak add
continue
set variable more = 100
finish
continue
"""
    done = gdb(commands, kernel, "--processor", processor)
    in_order(
        done.out,
        r"^Breakpoint 1, add \(pair=0x\w+, more=5\) at source.c:",
        r"#0  add \(pair=0x\w+, more=5\) .*\n#1  0x\w+ in kernel \(\)",
        r"^\$1 = {first = 7, second = 120 'x'}",
        r"^sum = 12",
        r"Old value = 0\nNew value = 12",
        r"Temporary breakpoint \d, add \(pair=0x\w+, more=6\)",
        r"Value returned is \$2 = 107",
        r"exited normally",
    )
    assert done.status == 0, done.err


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_guest_sees_floating_point_registers_that_gdb_sets(gdb, compiled, processor):
    options = ("-m32", "-g", "-fno-pic", "-no-pie", "-Wl,-Ttext=0x100000", "-Wl,--build-id=none", "-Wl,-e,_start")
    commands = """
break *&loaded
break *&stored
continue
info registers float
print $xmm3.uint128
print $mxcsr
set $st0 = 42
set $xmm3.v4_int32[0] = 77
continue
print whole
print word
print $st0 > 3.14 && $st0 < 3.15
print $xmm7.v2_double
continue
"""
    done = gdb(commands, compiled(FPU, *options), "--processor", processor)
    in_order(
        done.out,
        r"^st0 +1 +\(raw 0x3fff8000000000000000\)\nst1 +3.1415926535897932\d+ ",
        r"^fctrl +0x37f +895\nfstat +0x3000 +12288\nftag +0xfff +4095$",
        r"^\$1 = 7\n\$2 = \[ IM DM ZM OM UM PM \]$",
        r"^\$3 = 42\n\$4 = 77\n\$5 = 1\n\$6 = \{0, 0\}$",
        r"exited normally",
    )
    assert done.status == 0, done.err


@pytest.mark.parametrize("processor", PROCESSORS)
def test_two_cpus_are_two_threads(gdb, tmp_path, processor):
    image = tmp_path / "image.bin"
    image.write_bytes(calling(12, alone=b"\x90\x90\x90\xc3"))
    commands = f"""
break *{ALONE} if $ecx % 4 == 0
continue
info threads
printf "%d in %d\\n", $ecx, $_thread
stepi 2
printf "at %#lx in %d\\n", $pc, $_thread
thread 1
set $before = $pc
stepi
printf "elsewhere: %d in %d\\n", $pc != $before, $_thread
thread 2
printf "at %#lx in %d\\n", $pc, $_thread
continue
printf "%d in %d\\n", $ecx, $_thread
continue
printf "%d in %d\\n", $ecx, $_thread
continue
"""
    done = gdb(commands, image, "--processor", processor, "--cpus", "2")
    in_order(
        done.out,
        r"^Thread 2 .*hit Breakpoint 1, ",
        r"^  1 +Thread 1 .*\n\* 2 +Thread 2 ",
        r"^12 in 2$",
        rf"^at {ALONE + 2:#x} in 2$",
        r"^elsewhere: 1 in 1$",
        rf"^at {ALONE + 2:#x} in 2$",
        r"^8 in 2$",
        r"^4 in 2$",
        r"exited (normally|with code 01)",
    )


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_guest_that_gdb_leaves_goes_on_to_its_own_end(gdb, processor):
    commands = """
monitor catch pf if cpl == 3
monitor catch pf if cpl == 0
continue
print $error_code
detach
"""
    done = gdb(commands, "sample:panic", "--processor", processor)
    in_order(done.out, "Program received signal SIGSEGV", r"^\$1 = 2$", "detached")
    assert "KERNEL PANIC" in done.out  # the guest's console, when gdb takes it no more
    assert done.status == 4, done.err


@pytest.mark.parametrize("processor", PROCESSORS)
def test_stops_at_every_exception_change_nothing(gdb, tmp_path, processor):
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    in_process = processor == "unicorn"
    image = build.build("real", tmp_path / "guest.img", **({"BARE": 1} if in_process else {}))
    commands = """
monitor catch all
handle SIGSEGV SIGFPE SIGILL SIGBUS SIGTRAP nostop print pass
continue
"""
    plain = run(image, processor=processor, entry_mode=16 if in_process else None, timeout=LIMIT, keep=0)
    entry = ["--entry-mode", "16"] if in_process else []
    done = gdb(commands, image, "--processor", processor, *entry, "--console", tmp_path / "console")
    assert (tmp_path / "console").read_bytes() == plain.console
    assert b"HASH" in plain.console
    assert done.out.count("Program received signal") == plain.recorded > 100
    assert (plain.exit_code, done.status) == (0, 0)


def test_the_summary_of_a_shutdown_says_how_to_stop_there(tmp_path):
    words = [
        sys.executable,
        "-m",
        "trapline",
        "run",
        "sample:no-idt",
        "--memory",
        "8M",
        "--console",
        tmp_path / "console",
    ]
    plain = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
    *_, last = plain.stderr.splitlines()
    hint, _, command = last.partition(": ")
    assert hint == "to stop there in gdb"
    assert command == "trapline gdb sample:no-idt --memory 8M --gdb-options='-ex continue'"
    command = f"{sys.executable} -m {command}"
    done = subprocess.run(
        ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert "Program received signal SIGABRT" in done.stdout
    assert done.returncode == 130  # gdb was left, and killed the guest
