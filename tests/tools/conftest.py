"""A package of Debian whose loader shows what it is called with."""

import subprocess

import pytest


@pytest.fixture
def package(tmp_path):
    """Return a function that builds a package with that loader and further files, and returns it."""

    def package(**files):
        content = tmp_path / "content"
        (content / "DEBIAN").mkdir(parents=True)
        (content / "DEBIAN/control").write_text(
            "Package: loader\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: shows its arguments\n"
        )
        loader = content / "usr/lib64/ld-linux-x86-64.so.2"
        loader.parent.mkdir(parents=True)
        loader.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        loader.chmod(0o755)
        (content / "usr/bin").mkdir()
        for name, text in files.items():
            (content / "usr/bin" / name).write_text(text)
        archive = tmp_path / "loader.deb"
        subprocess.run(["dpkg-deb", "-b", content, archive], check=True, capture_output=True)
        return archive

    return package
