import sys
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.symbols import demangle as module
from trapline.symbols.demangle import demangle


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("main", "main"),
        ("_start", "_start"),
        ("_ZN3foo3barEv", "foo::bar()"),
        ("_ZN3foo3barEv.cold", "foo::bar().cold"),
        ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
        ("_RNvMsr_NtCs3ssYzQotkvD_3std4pathNtB5_7PathBuf3newCs15kBYyAo9fc_7mycrate", "<std::path::PathBuf>::new"),
        ("_RNvCs1234_7mycrate3foo.llvm.77", "mycrate::foo.llvm.77"),
        ("_R", "_R"),
        ("_RNvNtNtC", "_RNvNtNtC"),
        ("_Zqq", "_Zqq"),
    ],
)
def test_names(name, shown):
    pytest.importorskip("cpp_demangle")
    pytest.importorskip("rust_demangler")
    assert demangle(name) == shown


@given(
    st.builds(str.__add__, st.sampled_from(["_R", "_Z", "_ZN"]), st.text(ascii_letters + digits + "_.$", max_size=30))
)
def test_whatever_looks_mangled_has_a_name_and_nothing_is_printed(name):
    assert demangle(name)


def test_nothing_is_printed(capsys):
    demangle("_RINvNtC4core3ptr13drop_in_placeDG_E")
    assert capsys.readouterr().out == ""


def test_what_others_print_meanwhile_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(module, "_library", lambda _: print)
    demangle("_ZN3foo3barEv")
    assert capsys.readouterr().out == "_ZN3foo3barEv\n"


def test_without_the_libraries_a_name_stays(monkeypatch):
    monkeypatch.setitem(sys.modules, "cpp_demangle", None)
    module._library.cache_clear()
    try:
        assert demangle("_ZN3foo3barEv") == "_ZN3foo3barEv"
    finally:
        module._library.cache_clear()
