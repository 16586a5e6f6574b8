"""Whole guests on a real QEMU, one at a time."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest

from tests.acceptance import runs
from tests.programs import build
from tests.programs.kernel import build_kernel


def pytest_collection_modifyitems(items):
    here = str(Path(__file__).parent / "test_")
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.qemu)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _qemu():
    if shutil.which(runs.QEMU) is None:
        pytest.skip(f"{runs.QEMU} is not installed")


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """Return a function that builds a guest of tests/programs, once for each set of defines."""
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    folder = tmp_path_factory.mktemp("guests")

    @functools.cache
    def image(name, **defines):
        parts = [name, *(f"{key}{value}" for key, value in sorted(defines.items()))]
        return build.build(name, folder / f"{'-'.join(parts)}.img", **defines)

    return image


@pytest.fixture(scope="session")
def plain(image):
    """Return a function that runs a guest on QEMU alone, once."""

    @functools.cache
    def plain(name, *devices, **defines):
        return runs.on_qemu_alone(image(name, **defines), *devices, reboots=build.VARIANTS[name].reboots)

    return plain


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    """Return a function that builds the kernel in C: a multiboot image, and the same with symbols."""
    if missing := build_kernel.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    folder = tmp_path_factory.mktemp("kernel")

    @functools.cache
    def kernel(**defines):
        return build_kernel.build(folder / "-".join(["kernel", *defines]), **defines)

    return kernel


@pytest.fixture
def start(tmp_path):
    """Return a function that starts trapline and leaves it to the test."""
    started = []

    def start(arguments, **options):
        folder = tmp_path / f"run{len(started)}" if started else tmp_path
        folder.mkdir(exist_ok=True)
        started.append(runs.Started(arguments, folder, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()
