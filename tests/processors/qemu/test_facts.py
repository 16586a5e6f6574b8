import json
import os
import platform
from pathlib import Path

import pytest

from trapline.errors import LaunchError, UsageError
from trapline.processors.qemu import launch
from trapline.processors.qemu.facts import MANUAL, Facts, Key, key_of, load, store, tell
from trapline.processors.qemu.launch import check_isolation, facts_of
from trapline.processors.qemu.programs import find_qemu, qemu_version

FACTS = Facts((8, 2, 2), *(number % 2 == 0 for number in range(len(Facts._fields) - 1)))
KEY = Key("/usr/bin/qemu", 1000, 2_000_000_000)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache, in a directory that does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def file_of(cache):
    (file,) = (cache / "trapline").iterdir()
    return file


def test_what_is_stored_is_loaded(cache):
    assert load(KEY) is None
    store(KEY, FACTS)
    assert load(KEY) == FACTS
    assert type(load(KEY)) is Facts
    store(KEY, MANUAL)
    assert load(KEY) == MANUAL
    file_of(cache)  # and nothing else


@pytest.mark.parametrize(
    "other",
    [KEY._replace(size=1001), KEY._replace(mtime=1), KEY._replace(path="/opt/qemu"), KEY._replace(kvm="6.12 EPYC")],
)
def test_another_program_has_no_facts(other):
    store(KEY, FACTS)
    assert load(other) is None


def test_under_kvm_the_facts_are_those_of_this_machine(cache, tmp_path):
    program = tmp_path / "qemu"
    program.touch()
    tcg, kvm = key_of(str(program)), key_of(str(program), "kvm")
    assert (tcg.kvm, kvm._replace(kvm="")) == ("", tcg)
    assert kvm.kvm.startswith(platform.release())
    store(tcg, MANUAL)
    store(kvm, FACTS)
    assert (load(tcg), load(kvm)) == (MANUAL, FACTS)
    assert load(kvm._replace(kvm="another")) is None


def without(name):
    def change(kept):
        del kept["facts"][name]

    return change


def with_value(name, value):
    return lambda kept: kept["facts"].update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        without("loads_shadow"),
        without("version"),
        with_value("more", True),
        with_value("loads_shadow", 1),
        with_value("loads_shadow", "yes"),
        with_value("version", [8, 2]),
        with_value("version", None),
        with_value("version", ["eight", 2, 2]),
        lambda kept: kept.update(facts=[]),
        lambda kept: kept.pop("program"),
    ],
)
def test_facts_of_another_form_are_not_used(cache, change):
    store(KEY, FACTS)
    kept = json.loads(file_of(cache).read_text())
    change(kept)
    file_of(cache).write_text(json.dumps(kept))
    assert load(KEY) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 100_000])
def test_a_damaged_file_is_not_used_and_is_replaced(cache, content):
    store(KEY, FACTS)
    file_of(cache).write_bytes(content)
    assert load(KEY) is None
    store(KEY, FACTS)
    assert load(KEY) == FACTS


def test_where_nothing_can_be_written_nothing_is_kept(cache):
    cache.write_text("not a folder")
    store(KEY, FACTS)
    assert load(KEY) is None


def test_a_full_disk_leaves_no_half_file(cache, monkeypatch):
    store(KEY, FACTS)

    def full(self, text, encoding):
        self.touch()
        raise OSError("full")

    monkeypatch.setattr(Path, "write_text", full)
    store(KEY, MANUAL)
    assert load(KEY) == FACTS
    file_of(cache)


def test_a_user_without_a_home_keeps_nothing(monkeypatch):
    def home():
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    store(KEY, FACTS)
    assert load(KEY) is None


def test_a_relative_cache_is_not_one(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    store(KEY, FACTS)
    assert (tmp_path / ".cache/trapline").is_dir()


def test_a_key_follows_links_and_notices_a_new_file(tmp_path):
    program, link = tmp_path / "qemu", tmp_path / "link"
    program.write_text("one")
    link.symlink_to(program)
    key = key_of(str(link))
    assert key == key_of(str(program))
    assert (key.path, key.size) == (str(program), 3)
    os.utime(program, ns=(0, 5))
    assert key_of(str(link)) == key._replace(mtime=5)


def test_each_fact_is_told():
    told = tell(FACTS)
    assert [one.by_the_manual for one in told] == list(FACTS[1:])
    assert len({one.name for one in told}) == len(told)
    assert all(mine.sentence != other.sentence for mine, other in zip(told, tell(MANUAL), strict=True)
               if not mine.by_the_manual)  # fmt: skip


def test_isolation_needs_nested_tables_in_real_mode():
    check_isolation(MANUAL)
    with pytest.raises(UsageError, match=r"--isolate cannot be used: QEMU 8\.2\.2 does not walk nested page tables"):
        check_isolation(MANUAL._replace(version=(8, 2, 2), nests_in_real_mode=False))


def test_a_program_that_is_gone_has_no_facts():
    with pytest.raises(LaunchError, match="No such file"):
        facts_of("/nonexistent/qemu")


MEASURED = {
    (7, 2): MANUAL._replace(
        faults_set_rf=False,
        loads_shadow=False,
        plain_gate_codes=False,
        wide_invalid=False,
        knows_int1=False,
        saves_nrip=False,
    ),
    (8, 2): MANUAL._replace(
        faults_set_rf=False,
        loads_shadow=False,
        nests_in_real_mode=False,
        wide_invalid=False,
        knows_int1=False,
        saves_nrip=False,
    ),
    (10, 0): MANUAL._replace(interrupts_keep_rf=False, hlt_asks=False, saves_nrip=False),
    (11, 1): MANUAL._replace(interrupts_keep_rf=False, hlt_asks=False, saves_nrip=False),
}


@pytest.mark.qemu
def test_the_qemu_here_is_probed_once_and_does_what_was_measured(cache, monkeypatch):
    launch._facts.cache_clear()
    program = find_qemu()
    facts = facts_of(program)
    version = qemu_version(program)
    assert facts.version == version
    if version[:2] in MEASURED:
        assert facts == MEASURED[version[:2]]._replace(version=version)
    launch._facts.cache_clear()
    monkeypatch.setattr(launch, "_start", None)
    assert facts_of(program) == facts
    assert load(key_of(program)) == facts
