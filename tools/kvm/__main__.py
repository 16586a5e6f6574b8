"""`python -m tools.kvm [CASE ...]`: boots the emulated AMD host, runs trapline there, and prints a table.

The exit status is 1 where a guest was different from plain KVM. TCG as hardware lacks nRIP, and
exits for #BP and #OF as an AMD CPU makes them: tests/processors/qemu/test_quirks_kvm.py plays those. A guest that
resets its machine does not come back under plain KVM here, so there is nothing to compare with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.kvm import guests, host
from tools.testguests import Unobtainable

_LIMIT = 1800.0
_ROOT = Path(__file__).resolve().parents[2]
_START = """\
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/tmp LANG=C.UTF-8 PYTHONPYCACHEPREFIX=/tmp/compiled
export PYTHONPATH={root}/src:{root}
cd {root}
{python} -m tools.kvm.inside {share} {cases} > {share}/output 2>&1
touch {share}/done
"""


def run(cases: list[str]) -> int:
    """Run everything; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="trapline-kvm-") as folder:
        share = Path(folder)
        guests.make(share)
        start = _START.format(root=_ROOT, python=sys.executable, share=host.SHARE, cases=" ".join(cases))
        (share / "start").write_text(start)
        (share / "rows").touch()
        with (share / "console").open("wb") as console:
            booted = host.boot(share, console=console)
            try:
                return watch(booted, share)
            finally:
                booted.kill()
                booted.wait()


def watch(booted: subprocess.Popen[bytes], share: Path) -> int:
    """Print the rows as they come, until the host has ended; returns the exit status."""
    end = time.monotonic() + _LIMIT
    shown = failed = 0
    while True:
        over = booted.poll() is not None or (share / "done").exists() or time.monotonic() > end
        lines = (share / "rows").read_text(encoding="utf-8").splitlines()
        for line in lines[shown:]:
            row = json.loads(line)
            failed += bool(row["difference"])
            print(f"{row['case']:18} {row['seconds']:6.0f} s  {row['difference'] or 'as it should be'}", flush=True)
        shown = len(lines)
        if over:
            break
        time.sleep(0.5)
    if not (share / "done").exists() or not shown:
        print("the host ended before the tests did:", *_last(share / "console"), *_last(share / "output"), sep="\n")
        return 1
    return 1 if failed else 0


def _last(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-10:] if file.exists() else []


def main() -> int:
    """Run, or tell why it cannot."""
    if unknown := [case for case in sys.argv[1:] if case not in guests.CASES]:
        print(f"no case named {unknown[0]!r}; there are {', '.join(guests.CASES)}", file=sys.stderr)
        return 2
    try:
        return run(sys.argv[1:])
    except Unobtainable as reason:
        print(reason, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
