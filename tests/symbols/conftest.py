import shutil
import subprocess

import pytest

from tests.programs.kernel import build_kernel


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    """The kernel of tests/programs/kernel, by gcc with DWARF."""
    if missing := build_kernel.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    return build_kernel.build(tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Return a function that compiles and links a source file, without a C library."""
    if missing := [tool for tool in ("gcc", "g++") if shutil.which(tool) is None]:
        pytest.skip(f"{missing[0]} is not installed")

    def compiled(source, *options, suffix=".c"):
        folder = tmp_path_factory.mktemp("compiled")
        (folder / f"source{suffix}").write_text(source)
        command = ["g++" if suffix == ".cc" else "gcc", "-nostdlib", "-static", "-ffreestanding", "-Wl,-e,0", *options]
        subprocess.run([*command, f"source{suffix}", "-o", "program"], cwd=folder, check=True)
        return folder / "program"

    return compiled
