"""Get the real software that the acceptance tests boot, and keep it in a cache.

Debian's packages are downloaded and unpacked, never installed, so this needs no root. The cache is the
directory TRAPLINE_TEST_CACHE, or ~/.cache/trapline-tests. `python -m tools.testguests` fills the cache and
names the files; with names, such as linux_kernel, it prints only the paths of those.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import initramfs

KERNEL_PACKAGE = "linux-image-cloud-amd64"
_KERNELS = ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")
_BUSYBOX = ("bin/busybox", "usr/bin/busybox")
"""Where packages have them: older and newer ones."""
GRUB_MODULES = ("biosdisk", "iso9660", "part_msdos", "serial", "terminal", "echo", "halt", "normal")

# `halt` powers off by APM or ACPI, so the end of the run is the guest's own.
GRUB_CONFIG = """\
serial --unit=0 --speed=115200
terminal_output serial
echo "trapline: GRUB is up"
echo "trapline: root is $root"
echo "trapline: done"
halt
"""


class Unobtainable(Exception):
    """A file is not available on this machine; the message is a reason to skip."""


def cache_directory() -> Path:
    """Return the cache's directory; create it if necessary."""
    named = os.environ.get("TRAPLINE_TEST_CACHE")
    cache = Path(named).expanduser() if named else Path.home() / ".cache" / "trapline-tests"
    cache.mkdir(parents=True, exist_ok=True)
    return cache.absolute()


def missing_tools(*tools: str) -> list[str]:
    """Return the tools that are not on PATH."""
    return [tool for tool in tools if shutil.which(tool) is None]


def package(name: str) -> Path:
    """Return the directory that a Debian package is unpacked in, downloading it at first."""
    tree = cache_directory() / name
    if tree.is_dir():
        return tree
    if missing := missing_tools("apt-get", "dpkg-deb"):
        raise Unobtainable(f"package {name} is not in the cache, and {missing[0]} is not installed")
    # Unpacked beside its place and renamed when whole: a broken download leaves nothing.
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix=f".{name}-") as scratch:
        # _apt, the user apt sandboxes itself as, may not write here, and apt need not warn of that.
        output_of(f"package {name}", ["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", name], Path(scratch))
        (archive,) = Path(scratch).glob("*.deb")
        output_of(f"package {name}", ["dpkg-deb", "-x", str(archive), "tree"], Path(scratch))
        try:
            (Path(scratch) / "tree").rename(tree)
        except OSError:
            # Another run was first.
            if not tree.is_dir():
                raise
    return tree


def linux_kernel() -> Path:
    """Return Debian's current cloud kernel, a bzImage with the drivers for a virtual machine built in."""
    cached = sorted(kernel for pattern in _KERNELS for kernel in cache_directory().glob(f"linux-*/{pattern}"))
    if cached:
        return cached[-1]
    if missing := missing_tools("apt-cache"):
        raise Unobtainable(f"no Linux kernel in the cache, and {missing[0]} is not installed")
    # The meta package only depends on the one that holds a kernel, which from Linux 7 on depends on another in turn.
    name = _depended_on(KERNEL_PACKAGE, "linux-image-")
    with contextlib.suppress(Unobtainable):
        name = _depended_on(name, "linux-binary-")
    return only(package(name), *_KERNELS)


def _depended_on(name: str, start: str) -> str:
    """Return the package, by the start of its name, that one depends on."""
    lines = output_of(name, ["apt-cache", "depends", name], cache_directory()).splitlines()
    names = [line.split()[-1] for line in lines if f"Depends: {start}" in line]
    if not names:
        raise Unobtainable(f"apt knows no {start} package that {name} depends on (run apt-get update?)")
    return names[0]


def _compiler(headers: str) -> str:
    """Return the compiler, such as gcc-12, that a package of kernel headers depends on, itself or by another's name."""
    depends = output_of(headers, ["apt-cache", "depends", headers], cache_directory())
    if (found := re.search(r"gcc-\d+", depends)) is None:
        raise Unobtainable(f"apt does not know the compiler of {headers} (run apt-get update?)")
    return found[0]


def kernel_version(kernel: Path) -> str:
    """Return the version that a kernel's path has: in its name, or as that of the folder with its modules."""
    return kernel.name.removeprefix("vmlinuz-") if "-" in kernel.name else kernel.parent.name


def linux_initrd() -> Path:
    """Return the initramfs whose /init does some work and powers off."""
    return _initrd("initramfs.cpio", initramfs.LINUX_INIT)


def tracing_initrd() -> Path:
    """Return the initramfs whose /init lets the kernel trace its page faults, and sums them up."""
    return _initrd("initramfs-tracing.cpio", initramfs.TRACING_INIT)


def smp_initrd() -> Path:
    """Return the initramfs whose /init works on all CPUs, and sums up what the kernel traces of each."""
    return _initrd("initramfs-smp.cpio", initramfs.SMP_INIT)


def linux_kallsyms() -> Path:
    """Return /proc/kallsyms as the kernel wrote it when it ran here once, under QEMU; it takes half a minute."""
    kernel, initrd = linux_kernel(), _initrd("initramfs-kallsyms.cpio", initramfs.KALLSYMS_INIT)
    path = kernel.parent / f"kallsyms-{kernel_version(kernel)}"
    if path.exists():
        return path
    if missing := missing_tools("qemu-system-x86_64"):
        raise Unobtainable(f"{missing[0]} is not installed")
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    command = ["qemu-system-x86_64", "-cpu", "qemu64,-svm", "-m", "256M"]
    command += ["-nodefaults", "-display", "none", "-no-reboot"]
    command += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", "console=ttyS0 quiet panic=-1"]
    output_of("kallsyms", [*command, "-serial", "null", "-serial", f"file:{scratch}"], cache_directory())
    if b" T entry_SYSCALL_64\n" not in scratch.read_bytes():
        raise Unobtainable("the kernel did not write its names")
    scratch.replace(path)
    return path


def crashing_initrd() -> Path:
    """Return the initramfs whose module, built with the kernel's headers, writes through a null pointer."""
    version = kernel_version(linux_kernel())
    module = cache_directory() / f"crash-{version}.ko"
    if not module.exists():
        headers = f"linux-headers-{version}"
        if missing := missing_tools("make", _compiler(headers)):
            raise Unobtainable(f"{missing[0]} is not installed")
        names = (headers, _depended_on(headers, "linux-headers-"), _depended_on(headers, "linux-kbuild-"))
        with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
            tree, sources = Path(scratch, "tree"), Path(scratch, "module")
            for name in names:
                shutil.copytree(package(name), tree, symlinks=True, dirs_exist_ok=True)
            build = tree / "usr/src" / headers
            (build / "Makefile").write_text(f"include {tree / 'usr/src' / names[1] / 'Makefile'}\n")
            sources.mkdir()
            (sources / "Makefile").write_text("obj-m := crash.o\n")
            (sources / "crash.c").write_text(initramfs.CRASHING_MODULE)
            without_types = "CONFIG_DEBUG_INFO_BTF_MODULES="  # else pahole is needed
            output_of("a module", ["make", "-C", str(build), f"M={sources}", without_types, "modules"], sources)
            (sources / "crash.ko").replace(module)
    busybox = only(package("busybox-static"), *_BUSYBOX)
    content = initramfs.linux_initramfs(busybox.read_bytes(), initramfs.CRASHING_INIT, module.read_bytes())
    return _written("initramfs-crashing.cpio", content)


def memtest() -> Path:
    """Return Memtest86+, which boots by the Linux protocol."""
    return only(package("memtest86+"), "boot/memtest86+x64.bin")


def ipxe_iso() -> Path:
    """Return iPXE's bootable CD, which starts by ISOLINUX."""
    return only(package("ipxe"), "usr/lib/ipxe/ipxe.iso")


def grub_disk() -> Path:
    """Return a raw disk: GRUB's boot sector, and right after it a core image with a configuration."""
    modules = package("grub-pc-bin") / "usr/lib/grub/i386-pc"
    core = grub_core("i386-pc", modules)
    image = (modules / "boot.img").read_bytes() + core.read_bytes()
    return _written("grub-disk.img", image + bytes(-len(image) % (1 << 20)))


def grub_iso() -> Path:
    """Return a CD that boots GRUB by El Torito without emulation."""
    if missing := missing_tools("xorriso"):
        raise Unobtainable(f"{missing[0]} is not installed")
    core = grub_core("i386-pc-eltorito", package("grub-pc-bin") / "usr/lib/grub/i386-pc")
    image = cache_directory() / "grub.iso"
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix=".grub-") as scratch:
        content = Path(scratch) / "content"
        content.mkdir()
        shutil.copy(core, content / "eltorito.img")
        output_of(
            "GRUB's ISO image",
            [
                *("xorriso", "-as", "mkisofs", "-quiet", "-V", "TRAPLINE", "-b", "eltorito.img", "-no-emul-boot"),
                *("-boot-load-size", "4", "-boot-info-table", "-o", "grub.iso", str(content)),
            ],
            Path(scratch),
        )
        (Path(scratch) / "grub.iso").replace(image)
    return image


def kvm_unit_tests() -> Path:
    """Return the folder with the x86 images of kvm-unit-tests: TRAPLINE_KVM_UNIT_TESTS names it, or the tree above it.

    No package registry has them; they are built as their README says (`./configure && make`).
    """
    named = os.environ.get("TRAPLINE_KVM_UNIT_TESTS")
    if not named:
        raise Unobtainable("TRAPLINE_KVM_UNIT_TESTS does not name a built kvm-unit-tests tree")
    tree = Path(named).expanduser().absolute()
    for folder in (tree / "x86", tree):
        if any(folder.glob("*.flat")):
            return folder
    raise Unobtainable(f"no images of kvm-unit-tests (x86/*.flat) in {tree}")


def _initrd(name: str, init: bytes) -> Path:
    busybox = only(package("busybox-static"), *_BUSYBOX)
    return _written(name, initramfs.linux_initramfs(busybox.read_bytes(), init))


def grub_core(
    target: str, modules: Path, names: tuple[str, ...] = GRUB_MODULES, *, name: str = "", config: str = GRUB_CONFIG
) -> Path:
    """Build a core image of GRUB; its configuration is inside."""
    if missing := missing_tools("grub-mkimage"):
        raise Unobtainable(f"{missing[0]} is not installed")
    name = name or target
    file = _written(f"grub-{name}.cfg", config.encode())
    core = cache_directory() / f"core-{name}.img"
    # The configuration is embedded; the prefix is never read.
    command = ["grub-mkimage", "-O", target, "-d", str(modules), "-c", str(file), "-p", "/boot/grub"]
    output_of("GRUB", [*command, "-o", str(core), *names], cache_directory())
    return core


def output_of(what: str, command: list[str], directory: Path) -> str:
    """Return what a program writes; raises Unobtainable with the last line of its complaint."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unobtainable(f"{what} cannot be had: {command[0]}: {last}")
    return done.stdout


def only(tree: Path, *patterns: str) -> Path:
    """Return the one file that matches."""
    found = sorted(path for pattern in patterns for path in tree.glob(pattern))
    if len(found) != 1:
        raise Unobtainable(f"{tree}: {len(found)} files match {' or '.join(patterns)}, not one")
    return found[0]


def _written(name: str, content: bytes) -> Path:
    # Renamed into place, so that a test never boots half a file.
    path = cache_directory() / name
    if not path.is_file() or path.read_bytes() != content:
        scratch = path.with_name(f".{name}.{os.getpid()}")
        scratch.write_bytes(content)
        scratch.replace(path)
    return path


OBTAINABLE = {
    obtain.__name__: obtain for obtain in (linux_kernel, linux_initrd, memtest, ipxe_iso, grub_disk, grub_iso)
}


def main(names: list[str]) -> int:
    """Fill the cache; the exit status is 1 when a file is not available."""
    if unknown := [name for name in names if name not in OBTAINABLE]:
        print(f"no guest named {unknown[0]!r}; there are {', '.join(OBTAINABLE)}", file=sys.stderr)
        return 2
    status = 0
    for name in names or OBTAINABLE:
        try:
            path = OBTAINABLE[name]()
        except Unobtainable as reason:
            print(f"{name:13} {reason}", file=sys.stderr)
            status = 1
        else:
            print(path if names else f"{name:13} {path}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
