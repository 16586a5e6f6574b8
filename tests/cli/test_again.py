import shlex

import pytest

from trapline.cli.again import in_gdb
from trapline.cli.parser import parser


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a guest's kernel", "--initrd", "initrd", "--append", "quiet x='1'", "--memory", "1G"],
        ["code", "--entry-mode", "64", "--load-address", "0x200000", "--processor", "unicorn", "--symbols", "a@0x10"],
        [
            "disk",
            "--media",
            "cdrom",
            "--accel",
            "tcg",
            "--qemu",
            "qemu",
            "--isolate",
            "--symbols",
            "a",
            "--symbols",
            "b",
        ],
        ["disk", "--uefi"],
    ],
)
@pytest.mark.parametrize("qemu_options", [[], ["-device", "e1000,mac=x y"]])
def test_the_command_runs_the_same_guest(words, qemu_options):
    options = parser().parse_args(["run", *words])
    program, *given = shlex.split(in_gdb(options, qemu_options))
    end = given.index("--") if qemu_options else len(given)
    assert (program, given[end + 1 :]) == ("trapline", qemu_options)
    again = vars(parser().parse_args(given[:end]))
    assert again["gdb_options"] == "-ex continue"
    assert {name: again[name] for name in vars(options) if name not in ("verb", "gdb")} == {
        name: value for name, value in vars(options).items() if name not in ("verb", "gdb")
    }


@pytest.mark.parametrize("option", ["--timeout=1", "--json", "--reboot"])
def test_options_that_say_nothing_of_the_guest_are_left_out(option):
    assert option.split("=")[0] not in in_gdb(parser().parse_args(["run", "guest", option]), [])
