"""The glossary is in order, and has the words that the project uses."""

import re

from tests.pages import ROOT

PAGE = ROOT / "docs" / "glossary.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| **")
]
WORDS = [row[0].strip("*") for row in ROWS]


def test_the_words_are_sorted_and_each_is_there_once():
    assert len(WORDS) > 40
    assert sorted(set(WORDS), key=str.lower) == WORDS


def test_each_word_has_one_sentence():
    for word, meaning, section in ROWS:
        assert re.fullmatch(r"[A-Z](?:[^.]|\.(?=\S))*\.", meaning), word
        assert re.fullmatch(r"(?:\d+(?:\.\d+)+(?:, )?)*", section), word


def test_each_word_is_used():
    sources = [*(ROOT / "src").rglob("*.py"), *(page for page in (ROOT / "docs").glob("*.md") if page != PAGE)]
    text = "\n".join(path.read_text() for path in [*sources, ROOT / "README.md"]).lower()
    for word in WORDS:
        assert re.search(rf"\b{re.escape(word.lower().removesuffix('e'))}", text), word
