"""The initramfs of the acceptance tests, made byte for byte: busybox, a script, and programs that fault."""

from __future__ import annotations

import struct
from dataclasses import dataclass

DIRECTORY = 0o040755
PROGRAM = 0o100755
_CHARACTER_DEVICE = 0o020600

# Programs of a few bytes, each of which makes the CPU raise one exception in ring 3; the kernel turns it
# into a signal, and the shell that into an exit status of 128 + signal. TCG departs from the manual in two:
# it raises #GP in place of #SS, and no #XM at all (status 0).
FAULTS: dict[str, bytes] = {
    "de": bytes.fromhex("31c9 f7f1"),  # xor ecx, ecx; div ecx: #DE, SIGFPE
    "db": bytes.fromhex("9c 810c2400010000 9d 90"),  # pushf; or dword [rsp], TF; popf; nop: #DB, SIGTRAP
    "bp": bytes.fromhex("cc"),  # int3: #BP, SIGTRAP
    "of": bytes.fromhex("cd04"),  # int 4, through the gate of #OF: SIGSEGV
    "ud": bytes.fromhex("0f0b"),  # ud2: #UD, SIGILL
    "gp": bytes.fromhex("f4"),  # hlt outside ring 0: #GP, SIGSEGV
    "ss": bytes.fromhex("48b80000000000008000 4889c4 50"),  # mov rsp, 1 << 55; push rax: #SS, SIGBUS
    "pf": bytes.fromhex("31c0 8b00"),  # xor eax, eax; mov eax, [rax]: #PF, SIGSEGV
    "mf": bytes.fromhex("6a00 d92c24 d9e8 d9ee def9 9b"),  # fldcw [rsp]; fld1; fldz; fdivp; fwait: #MF, SIGFPE
    "xm": bytes.fromhex("6a00 0fae1424 0f57c0 0f5ec0"),  # ldmxcsr [rsp]; xorps, divps xmm0, xmm0: #XM, SIGFPE
}

_EXIT = bytes.fromhex("b83c000000 31ff 0f05")  # mov eax, 60; xor edi, edi; syscall: exit(0)

BEGIN = rb"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
"""
"""How such a script begins."""
LINUX_INIT = (
    BEGIN
    + rb"""echo "trapline: up"
cd /tmp

# Each process is forked and executed anew: faults for its stack, its heap and its copies on write.
i=0
while [ $i -lt 120 ]; do
    /bin/true
    i=$((i + 1))
done
echo "trapline: processes $i"

i=0
while [ $i -lt 700 ]; do
    (exit 0)
    i=$((i + 1))
done
echo "trapline: forks $i"

seq 1 10000 > numbers
echo "trapline: sum $(awk '{ s += $1 } END { print s }' numbers)"
echo "trapline: sha256 $(sha256sum < numbers | cut -c1-64)"
gzip -c numbers > numbers.gz
gunzip -c numbers.gz | cmp - numbers && echo "trapline: gzip same"
echo "trapline: sorted $(sort -r numbers | md5sum | cut -c1-32)"
mkdir tree
tar -cf - -C / bin/busybox init | tar -xf - -C tree
cmp tree/bin/busybox /bin/busybox && echo "trapline: tar same"
echo "trapline: lines $(seq 1 200 | xargs -n 4 echo | wc -l)"

for fault in /faults/*; do
    $fault 2> /dev/null
    echo "trapline: fault ${fault##*/} status $?"
done

echo "trapline: counters" $(grep -E '^(pgfault|pgmajfault)' /proc/vmstat)
echo "trapline: done"
poweroff -f
"""
)

# The kernel traces each page fault itself. Two faults in division mark the same span in its trace, as signals, and in
# the records: the page faults between them must agree.
_TRACING = (
    BEGIN
    + rb"""mount -t tracefs tracefs /sys/kernel/tracing
trace=/sys/kernel/tracing
begin_trace() {
    echo $1 > $trace/buffer_size_kb
    echo "sig == 8" > $trace/events/signal/signal_generate/filter
    echo 1 > $trace/events/signal/signal_generate/enable
    echo 1 > $trace/events/exceptions/enable
}
find_faults() {
    sed -n "/signal_generate/,/signal_generate/ {
        s/.*page_fault_user: address=\(.*\) ip=\(.*\) error_code=\(.*\)/user \1 \2 \3/p
        s/.*page_fault_kernel: address=\(.*\) ip=.* error_code=\(.*\)/kernel \1 \2/p
    }" $1 > faults
}
"""
)
TRACING_INIT = (
    _TRACING
    + rb"""begin_trace 8192
echo "trapline: up"
cd /tmp

/faults/de 2> /dev/null
i=0
while [ $i -lt 50 ]; do
    (exit 0)
    /bin/true
    i=$((i + 1))
done
seq 1 2000 | gzip -c | gunzip -c | sort -r | md5sum
for fault in gp ud pf bp; do
    /faults/$fault 2> /dev/null
done
/faults/de 2> /dev/null

echo 0 > $trace/tracing_on
echo "trapline: lost $(awk '/overrun:|dropped/ { lost += $NF } END { print lost }' $trace/per_cpu/cpu0/stats)"
find_faults $trace/trace
echo "trapline: faults $(wc -l < faults)"
echo "trapline: sha256 $(sha256sum < faults | cut -c1-64)"
echo "trapline: done"
poweroff -f
"""
)

# On several CPUs: one is taken offline and online again. Then each has a shell and its children to itself: between two
# faults in division on it, what the kernel traces of its page faults must agree with its records. Then more shells than
# CPUs run wherever they are put.
SMP_INIT = (
    _TRACING
    + rb"""cpus=$(nproc)
echo "trapline: up with $cpus"
cd /tmp

last=/sys/devices/system/cpu/cpu$((cpus - 1))/online
i=0
while [ $i -lt 10 ] && echo 0 > $last && [ $(nproc) = $((cpus - 1)) ] && echo 1 > $last && [ $(nproc) = $cpus ]; do
    i=$((i + 1))
done
echo "trapline: offline and online $i times"

cat > work << 'END'
trap 'signals=$((signals + 1))' USR1
signals=0
/faults/de
i=0
while [ $i -lt 20 ]; do
    (exit 0)
    /bin/true
    kill -USR1 $$
    dd if=/dev/zero of=/dev/null bs=1M count=1
    i=$((i + 1))
done
seq 1 2000 | gzip -c | gunzip -c | sort -r | md5sum
for fault in gp ud pf bp; do
    /faults/$fault
    echo "$fault $?"
done
/faults/de
echo "forks $i signals $signals"
END

begin_trace 16384
cpu=0
while [ $cpu -lt $cpus ]; do
    taskset $(printf %x $((1 << cpu))) sh work > done.$cpu 2> /dev/null &
    cpu=$((cpu + 1))
done
wait
echo 0 > $trace/tracing_on
echo "trapline: lost $(cat $trace/per_cpu/*/stats | awk '/overrun:|dropped/ { lost += $NF } END { print lost }')"
for cpu in $(seq 0 $((cpus - 1))); do
    find_faults $trace/per_cpu/cpu$cpu/trace
    echo "trapline: cpu $cpu faults $(wc -l < faults) sha256 $(sha256sum < faults | cut -c1-64)"
done

for i in 1 2 3 4 5 6; do
    sh work > done.any.$i 2> /dev/null &
done
wait
echo "trapline: $(cat done.* | sort | uniq -c | tr -s '\n ' ' ')"
echo "trapline: done"
poweroff -f
"""
)

# Debian's System.map has no symbols; /proc/kallsyms of a running kernel has, at the addresses of one boot.
KALLSYMS_INIT = rb"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
echo 0 > /proc/sys/kernel/kptr_restrict
stty -F /dev/ttyS1 raw
cat /proc/kallsyms > /dev/ttyS1
sync
poweroff -f
"""


# A module writes through a null pointer, by a function of the kernel's.
CRASHING_INIT = rb"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
echo 1 > /proc/sys/kernel/panic_on_oops
insmod /crash.ko
poweroff -f
"""
CRASHING_MODULE = r"""
#include <linux/module.h>
#include <linux/string.h>
static int __init crash_init(void)
{
    void *nowhere = NULL;
    OPTIMIZER_HIDE_VAR(nowhere);
    memmove(nowhere, THIS_MODULE, 64);
    return 0;
}
module_init(crash_init);
MODULE_LICENSE("GPL");
"""


def linux_initramfs(busybox: bytes, init: bytes = LINUX_INIT, module: bytes = b"") -> bytes:
    """Return the archive: the same bytes for the same busybox, script and module, which is /crash.ko."""
    members = [Member(name, DIRECTORY) for name in ("bin", "dev", "faults", "proc", "sys", "tmp")]
    members += [
        Member("bin/busybox", PROGRAM, busybox),
        # The kernel opens it for /init before devtmpfs is mounted.
        Member("dev/console", _CHARACTER_DEVICE, device=(5, 1)),
        Member("init", PROGRAM, init),
    ]
    members += [Member("crash.ko", PROGRAM, module)] if module else []
    members += [Member(f"faults/{name}", PROGRAM, static_elf(code + _EXIT)) for name, code in FAULTS.items()]
    return cpio(members)


def static_elf(code: bytes) -> bytes:
    """Return a 64-bit ELF executable of one segment that starts with the code."""
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    return (
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
        + code
    )


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(members: list[Member]) -> bytes:
    """Return an archive in the newc format (Linux, driver-api/early-userspace/buffer-format.rst)."""
    archive = bytearray()
    for inode, member in enumerate([*members, Member("TRAILER!!!", 0)], start=1):
        name = member.name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, the file's own device (2), the device that it names (2),
        # size of the name, checksum
        fields = (inode, member.mode, 0, 0, 1, 0, len(member.content), 0, 0, *member.device, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        archive += bytes(-len(archive) % 4)
        archive += member.content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
