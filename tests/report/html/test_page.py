import base64
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.report.html.pages import RARE, RECORDS, hostile_page, records
from trapline.arch.registers import CR0, RFLAGS
from trapline.explain.explanation import AT_END
from trapline.report.html import Page, page
from trapline.report.html.decode import bits, row
from trapline.symbols import Symbol
from trapline.trace.overview import overview


class Reader(HTMLParser):
    """Notes the tags, the attributes and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.text, self._script = [], [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attributes]
        self._script = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        (self.scripts if self._script else self.text).append(data)


@pytest.fixture(scope="module")
def text():
    return hostile_page()


@pytest.fixture(scope="module")
def reader(text):
    return Reader(text)


def test_what_a_guest_wrote_stays_text(text, reader):
    assert "img" not in reader.tags
    assert reader.tags.count("script") == 2
    assert not [each for each in reader.attributes if each[1].startswith("on") or each[1] in ("style", "src")]
    shown = "</script><img src=https://example.org/ onerror=pwned()>&amp;\\u202e\\x1b"
    assert sum(shown in piece for piece in reader.text) > 40
    assert not {"\u202e", "\x1b"} & set(text)


def test_where_the_state_was_read_is_said(reader):
    assert reader.text.count(AT_END) == 1


def test_the_policy_names_what_is_in_the_page_and_allows_nothing_else(text):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none';")
    assert re.fullmatch(r".*; style-src 'sha256-[\w+/=]+'; script-src 'sha256-[\w+/=]+'", policy)
    assert not re.search(r"(https?:)?//(?!example)\w+\.\w", re.sub(r"example\.org/", "", text))


def test_the_page_without_data_is_small():
    assert len(page(Page(title="nothing", overview=overview([])))) < 60_000


def test_the_timeline_has_every_record(reader):
    data = json.loads(reader.scripts[-2])
    assert [(lane["name"], lane["whole"]) for lane in data["lanes"]] == [("#UD", True), ("#GP", True), ("#PF", False)]
    tsc, seq = data["axes"]
    assert (tsc["least"], tsc["span"]) == ("5", (RECORDS - 1) * 1000)
    assert [at for at, each in zip(seq["rare"], data["rare"], strict=True) if each["vector"] == 6] == list(RARE)
    for axis in (tsc, seq):
        planes = np.frombuffer(zlib.decompress(base64.b64decode(axis["data"])), np.uint8).reshape(4, axis["bins"])
        counts = np.ascontiguousarray(planes.T).view("<u4").ravel()
        assert counts.sum() == sum(lane["times"] for lane in data["lanes"] if not lane["whole"])


def test_names_of_symbol_files_come_first():
    known = overview(records())
    text = page(Page(title="a", overview=known, lookup=lambda _: Symbol("copy_user", 3, "user.c", 7)))
    assert "copy_user+0x3" in text
    assert "user.c:7" in text


def test_a_record_is_decoded():
    found = row(
        {"seq": 7, "vector": 14, "error_code": 2, "address": 0xB8000, "cpl": 0, "linear_rip": 0x1000, "vectoring": 6,
         "outcome": "injected", "injected": 13, "rflags": 0x10246, "cr0": 0x8000_0011}
    )  # fmt: skip
    assert (found.name, found.place, found.outcome) == ("#PF", "0x1000", "injected #GP")
    assert found.detail == "address 0xb8000; error 0x2: write, not present, supervisor; while delivering #UD"
    assert [tuple(each) for each in found.registers] == [
        ("rflags", "0x10246", "PF ZF IF RF"),
        ("cr0", "0x80000011", "PE ET PG"),
    ]
    assert row({"seq": 0, "vector": 3}) == (0, 3, "#BP", "", "", "", "", "", ())


def test_bits_without_a_name_are_left_out():
    assert bits(RFLAGS, 1 << 1 | 1 << 40 | 1 << 9) == "IF"
    assert bits(CR0, 0) == ""
