import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.typed import CHARACTERS
from trapline.errors import UsageError
from trapline.processors.qemu.command import (
    _REFUSED,
    _REFUSED_PROPERTIES,
    Descriptors,
    command,
    read_user_options,
    takes_stdio,
)
from trapline.processors.qemu.flash import Chip

FILES = Descriptors(monitor=11, firmware=12, doorbell=13, qmp=14, gdb=15, log=16)


def line(
    *words,
    accelerator="tcg",
    guest=(),
    serial=("-serial", "stdio"),
    hide_svm=True,
    isolated=False,
    memory=128 << 20,
    descriptors=FILES,
    user=None,
):
    return command(
        "/bin/qemu",
        accelerator=accelerator,
        memory=memory,
        descriptors=descriptors,
        guest=guest,
        user=user or read_user_options(words),
        hide_svm=hide_svm,
        isolated=isolated,
        serial=serial,
    )


def values(words, name):
    return [words[place + 1] for place, word in enumerate(words) if word == name]


@pytest.mark.parametrize("name", _REFUSED)
@pytest.mark.parametrize("dash", ["", "-"])
def test_options_that_cannot_work_are_refused_in_words(name, dash):
    with pytest.raises(UsageError) as error:
        read_user_options(["-net", "none", dash + name, "1"])
    assert str(error.value) == f"{dash}{name} cannot be given to QEMU: {_REFUSED[name]}"


@pytest.mark.parametrize("name", ["-cpu", "-bios", "-machine", "-M", "-smp", "--machine"])
def test_options_without_their_value_are_refused(name):
    with pytest.raises(UsageError, match=f"{name} needs a value"):
        read_user_options([name])


@pytest.mark.parametrize("name", _REFUSED_PROPERTIES)
def test_properties_of_the_machine_that_cannot_work_are_refused(name):
    with pytest.raises(UsageError, match=rf"-machine {name}= cannot be given to QEMU: \w"):
        read_user_options(["-machine", f"q35,{name}=1"])


@pytest.mark.parametrize("value", ["microvm", "type=isapc", "none", "pc,type=virt", "q35,x-remote", "pcx", "help"])
def test_other_machines_are_refused(value):
    with pytest.raises(UsageError, match="only pc and q35 machines can be run"):
        read_user_options(["-M", value])


@pytest.mark.parametrize(
    "value", ["pc", "q35", "type=q35", "pc-i440fx-7.2", "pc-q35-6.0", "usb=on", "smm=off,hpet=off"]
)
def test_machines_go_to_qemu_option_by_option(value):
    words = line("-M", value, "-machine", "vmport=off")
    assert values(words, "-machine")[:3] == ["pc", value, "vmport=off"]
    assert read_user_options(["-M", value]).machine == value


@pytest.mark.parametrize(
    ("value", "asked"), [("smm=on", True), ("q35,smm=auto", True), ("q35,smm=off", False), ("pc", False)]
)
def test_system_management_mode_is_the_users_choice(value, asked):
    assert read_user_options(["-machine", value]).asks_for_smm == asked
    assert values(line("-machine", value), "-machine")[1:] == [value, "accel=tcg"]


def test_under_kvm_there_is_none():
    assert values(line(accelerator="kvm"), "-machine")[-1] == "accel=kvm,smm=off"


@pytest.mark.parametrize(
    ("words", "chip", "rest"),
    [
        (["-drive", "if=pflash,file=a,,b.fd"], Chip("a,b.fd", writable=True), ()),
        (["-drive", "file=C.fd,if=pflash,readonly=on,format=raw"], Chip("C.fd"), ()),
        (["-pflash", "a,b", "--pflash", "V"], Chip("a,b", writable=True), ("if=pflash,format=raw,file=V,unit=1",)),
        (
            ["-drive", "if=pflash,unit=1,file=V", "-drive", "if=pflash,file=C,readonly"],
            Chip("C"),
            ("if=pflash,unit=1,file=V",),
        ),
    ],
)
def test_the_first_chip_of_flash_is_taken_and_the_others_stay(words, chip, rest):
    user = read_user_options([*words, "-nodefaults"])
    assert user.flash == chip
    assert user.rest == (*(part for drive in rest for part in ("-drive", drive)), "-nodefaults")


def test_other_drives_are_not_flash():
    assert read_user_options(["-drive", "file=if=pflash.img"]).rest == ("-drive", "file=if=pflash.img")
    assert read_user_options(["-drive"]).rest == ("-drive",)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-drive", "if=pflash,unit=1,file=V"], "there is no unit 0"),
        (["-drive", "if=pflash,format=raw"], "named by file="),
        (["-drive", "if=pflash,format=qcow2,file=C"], "not in qcow2"),
        (["-pflash", "C", "-bios", "B"], "-bios cannot be given to QEMU: the firmware is in flash"),
        (["-pflash"], "-pflash needs a value"),
    ],
)
def test_flash_without_firmware_is_refused(words, why):
    with pytest.raises(UsageError, match=why):
        read_user_options(words)


def test_flash_is_a_copy_of_ours_and_so_are_the_variables_of_firmware_that_was_found():
    user = read_user_options([])._replace(flash=Chip("C.fd", variables="V.fd"))
    written = line(user=user, descriptors=FILES._replace(variables=17))
    assert "-bios" not in written
    assert values(written, "-drive") == [
        "if=pflash,format=raw,file=/proc/self/fd/12,unit=0,readonly=on",
        "if=pflash,format=raw,file=/proc/self/fd/17,unit=1,readonly=off",
    ]


@pytest.mark.parametrize("value", ["1", "cpus=1", "1,maxcpus=1", "sockets=1,cores=1,threads=1", "1,sockets=1"])
def test_one_processor_is_what_there_is(value):
    user = read_user_options(["-smp", value])
    assert (user.rest, user.cpus, user.smp) == ((), 1, None)
    assert values(line("-smp", value), "-smp") == []


@pytest.mark.parametrize(
    "value",
    ["2", "cpus=2", "2,maxcpus=2", "maxcpus=2", "sockets=2", "cores=2", "threads=2", "dies=2", "2,cores=2,threads=1"],
)
def test_several_processors(value):
    assert read_user_options(["-smp", value]).cpus == 2
    words = line("-smp", value)
    assert values(words, "-smp") == [value]
    assert values(words, "-cpu") == ["qemu64,-svm,-x2apic"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        *((["-smp", value], "can be added later") for value in ("1,maxcpus=2", "1,cores=2,threads=2", "2,maxcpus=4")),
        (["-smp", "9"], "8 CPUs here at most"),
        (["-smp", "2", "-smp", "4"], "two different numbers"),
        (["-smp", "2", "-icount", "auto"], "-icount cannot be given"),
    ],
)
def test_processors_that_cannot_be_had_are_refused(words, why):
    with pytest.raises(UsageError, match=why):
        read_user_options(words)


@pytest.mark.parametrize("value", ["", "two", "cpus=two", "1,maxcpus=x", "1,cores="])
def test_what_is_no_number_of_processors_is_refused(value):
    with pytest.raises(UsageError, match="not a number of processors"):
        read_user_options(["-smp", value])


@pytest.mark.parametrize(
    ("words", "accelerator", "hide_svm", "expected"),
    [
        ([], "tcg", True, "qemu64,-svm"),
        ([], "kvm", False, "host,+svm,+nrip-save,kvm=off"),
        (["-cpu", "max,+avx"], "tcg", True, "max,+avx,-svm"),
        (["-cpu", "max", "--cpu", "EPYC"], "tcg", True, "EPYC,-svm"),
        (["-cpu", "EPYC-Milan"], "kvm", False, "EPYC-Milan,+svm,+nrip-save,kvm=off"),
    ],
)
def test_the_cpu_is_the_users_but_for_svm(words, accelerator, hide_svm, expected):
    assert values(line(*words, accelerator=accelerator, hide_svm=hide_svm), "-cpu") == [expected]


def test_the_bios_is_read_by_us():
    user = read_user_options(["-bios", "a.bin", "-bios", "b.bin", "-net", "none"])
    assert (user.bios, user.rest) == ("b.bin", ("-net", "none"))
    assert read_user_options([]).bios is None
    assert values(line("-bios", "a.bin"), "-bios") == ["/proc/self/fd/12"]


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ([], True),
        (["-net", "none"], True),
        (["-serial", "null"], False),
        (["--serial", "null"], False),
        (["-nographic"], False),
        (["-nodefaults"], True),
        (["-device", "isa-serial,chardev=mine"], False),
        (["-device", '{"driver": "isa-serial", "chardev": "mine"}'], False),
        (["-global", "isa-serial.iobase=0x3f8"], False),
        (["-device", "isa-debug-exit"], True),
        (["-nodefaults", "-serial", "file:here"], False),
    ],
)
def test_the_serial_port_is_ours_unless_the_user_says_where_it_goes(words, ours):
    assert ("stdio" in line(*words)) is ours


def test_no_reboot_is_understood_and_kept_away():
    assert "-no-reboot" not in line("-no-reboot")


@pytest.mark.parametrize(
    ("words", "guest"),
    [
        (["-device", "isa-debug-exit"], ()),
        (["--device", "isa-debug-exit,iobase=0x501"], ()),
        (["-device", '{"driver": "isa-debug-exit", "iobase": 244}'], ()),
        ([], ("-device", "isa-debug-exit,iobase=0x604")),
    ],
)
def test_there_is_a_debug_exit_unless_there_is_another(words, guest):
    ours = "isa-debug-exit,iobase=0xf4,iosize=4"
    assert ours in values(line("-device", "VGA"), "-device")
    assert ours not in values(line(*words, guest=guest), "-device")


def test_ours_come_first_then_the_guests_then_the_users():
    words = line("-net", "none", guest=("-cdrom", "a.iso"))
    assert words[0] == "/bin/qemu"
    assert words[-6:] == ["-serial", "stdio", "-cdrom", "a.iso", "-net", "none"]


def test_files_are_inherited_by_number():
    words = line()
    objects = values(words, "-object")
    assert objects == [
        "memory-backend-file,id=trapline.monitor,size=16777216,mem-path=/proc/self/fd/11,share=on",
    ]
    assert values(words, "-chardev") == [
        "socket,id=trapline.doorbell,fd=13",
        "socket,id=trapline.qmp,fd=14",
        "socket,id=trapline.gdb,fd=15",
    ]
    assert values(words, "-m") == ["128M"]
    assert "ivshmem-plain,memdev=trapline.monitor,addr=1e.7" in values(words, "-device")
    assert "isa-debugcon,iobase=0xa20,readback=0xff,chardev=trapline.doorbell" in values(words, "-device")
    assert values(words, "-machine")[-1] == "accel=tcg"


pieces = st.sampled_from(
    [
        *_REFUSED,
        *("-cpu", "-bios", "-machine", "-M", "-smp", "-drive", "-serial", "-no-reboot", "-", "--", "="),
        *("pc", "q35", "smm=off", "cpus=1", "maxcpus=x", "cores=", "1,1", "type=", "if=pflash", "1=1,=,"),
    ]
)


@given(st.lists(pieces | st.text(CHARACTERS, max_size=8), max_size=8))
def test_whatever_the_user_writes_the_answer_is_in_words(words):
    with contextlib.suppress(UsageError):
        assert len(read_user_options(words).rest) <= len(words)
        assert line(*words)[0] == "/bin/qemu"


@pytest.mark.parametrize(
    ("options", "takes"),
    [
        ((), False),
        (("-net", "none", "-monitor", "null"), False),
        (("-monitor", "stdio"), True),
        (("-serial", "mon:stdio"), True),
        (("-chardev", "stdio,id=mine"), True),
        (("-nographic",), True),
        (("--nographic",), True),
        (("-display", "curses"), True),
        (("-display", "curses,charset=CP437"), True),
        (("-curses",), True),
    ],
)
def test_options_that_take_the_standard_input(options, takes):
    assert takes_stdio(options) is takes


@pytest.mark.parametrize(("memory", "vapic"), [(3583 << 20, False), (3584 << 20, True)])
def test_an_isolated_machine_has_no_device_that_reaches_all_memory(memory, vapic):
    found = line(isolated=True, memory=memory)
    assert values(found, "-nic") == ["none"]
    assert values(found, "-global") == ["apic-common.vapic=off"] * vapic
    assert "-nic" not in line(memory=memory)
