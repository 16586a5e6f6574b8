"""The emulated AMD host: QEMU's TCG with a Debian kernel that nests KVM, and this machine's files as its own.

    L0  QEMU (TCG), a CPU with SVM      L1  Linux with kvm_amd nested=1      L2  trapline's monitor      L3  the guest

QEMU and the kernel are those of one Debian release, whose pair is known to nest right: 7.2 writes into the wrong memory
as long as the guest's paging is off. They are in the cache of `tools.testguests`. All else is this machine's, which the
host mounts by 9p, read-only: its Python, its QEMU, trapline. One folder is shared for writing.
"""

from __future__ import annotations

import lzma
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from tools.initramfs import DIRECTORY, PROGRAM, Member, cpio
from tools.qemus import program
from tools.releases import Release
from tools.testguests import Unobtainable, cache_directory, output_of, package

RELEASE = "trixie"
_KERNEL = "linux-image-amd64"
_TREE = "kvm-host-kernel"
_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "kvm", "kvm_amd")
SHARE = "/run/trapline"
"""Where the host sees the shared folder."""
_INIT = rb"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
    case $module in kvm_amd) options=nested=1;; *) options=;; esac
    insmod /modules/$module.ko $options || echo "kvm host: $module does not load"
done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose files /root || poweroff -f
umount /proc
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t devtmpfs dev /root/dev
mkdir -p /dev/shm
mount -t tmpfs shm /root/dev/shm
mount -t tmpfs tmp /root/tmp
mount -t tmpfs run /root/run
mkdir /root/run/trapline
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share /root/run/trapline || poweroff -f
ip link set lo up
chroot /root /bin/sh /run/trapline/start
sync
poweroff -f
"""


def kernel() -> Path:
    """Return the folder that the host's kernel is unpacked in, downloading it at first; raises Unobtainable."""
    tree = cache_directory() / _TREE
    if tree.is_dir():
        return tree
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix=f".{_TREE}-") as scratch:
        release = Release(RELEASE, Path(scratch))
        archive = release.alone(release.depended_on(_KERNEL, "linux-image-"))
        output_of(archive.name, ["dpkg-deb", "-x", str(archive), str(Path(scratch, "tree"))], Path(scratch))
        try:
            Path(scratch, "tree").rename(tree)
        except OSError:
            if not tree.is_dir():  # else another run was first
                raise
    return tree


def initramfs(tree: Path) -> bytes:
    """Return the archive whose /init loads KVM, mounts this machine's files and runs the script `start`."""
    modules = in_order(next(iter(tree.glob("**/modules.builtin"))).parent, _MODULES)
    busybox = next(iter(path for path in package("busybox-static").glob("**/bin/busybox")))
    members = [Member(name, DIRECTORY) for name in ("bin", "dev", "modules", "proc", "root")]
    members += [Member("init", PROGRAM, _INIT), Member("bin/busybox", PROGRAM, busybox.read_bytes())]
    members += [Member("modules/order", PROGRAM, "\n".join(modules).encode())]
    members += [Member(f"modules/{name}.ko", PROGRAM, content) for name, content in modules.items()]
    return cpio(members)


def in_order(folder: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Return modules by their names, each after those that it needs."""
    files = {_name(path.name): path for path in folder.glob("kernel/**/*.ko*")}
    builtin = {_name(Path(line).name) for line in (folder / "modules.builtin").read_text().splitlines()}
    found: dict[str, bytes] = {}

    def take(name: str) -> None:
        if name in found or name in builtin:
            return
        if name not in files:
            raise Unobtainable(f"the kernel in {folder} has no module {name}")
        content = files[name].read_bytes()
        content = lzma.decompress(content) if files[name].suffix == ".xz" else content
        for field in content.split(b"\0"):
            if field.startswith(b"depends="):
                for needed in filter(None, field[8:].decode().split(",")):
                    take(_name(needed))
        found[name] = content

    for name in wanted:
        take(name)
    return found


def _name(file: str) -> str:
    return file.partition(".")[0].replace("-", "_")


def boot(share: Path, *, cpu: str = "EPYC", console: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the host, which runs the script `start` of the shared folder and powers off; raises Unobtainable."""
    qemu = program(RELEASE)
    tree = kernel()
    image = next(iter(tree.glob("boot/vmlinuz-*")))
    (share / "initramfs").write_bytes(initramfs(tree))
    command = [
        str(qemu),
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", "2", "-m", "3G"),
        *("-kernel", str(image), "-initrd", str(share / "initramfs")),
        *("-append", "console=ttyS0 panic=-1 mitigations=off nokaslr tsc=reliable nowatchdog loglevel=4"),
        *("-virtfs", "local,path=/,mount_tag=files,security_model=none,readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={share},mount_tag=share,security_model=none"),
        *("-nic", "none", "-display", "none", "-no-reboot", "-serial", "stdio", "-monitor", "none"),
    ]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
