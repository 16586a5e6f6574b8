"""The page in a browser: what a screen reader, a keyboard and a small screen find, and that it loads nothing."""

import pytest

from tests.report.html.chromium import Chromium, program
from tests.report.html.pages import RECORDS, hostile_page
from tools.axe import axe_core
from tools.testguests import Unobtainable

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium is installed")
VIEW = "document.getElementById('chart-view').textContent"
VIOLATIONS = """axe.run({resultTypes: ['violations'], rules: {'color-contrast': {enabled: CONTRAST}}}).then(
  (found) => found.violations.map((each) => [each.id, each.help, each.nodes.map((node) => node.html)]))"""
WIDTHS = (1280, 390)
ALL = f"All: 0 to 4.999 M cycles: #UD 2, #GP 498, #PF {RECORDS - 500:,}."


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(hostile_page(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Chromium(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def test_it_has_no_violation_of_axe_and_asks_for_nothing(browser, file):
    try:
        axe = axe_core().read_text(encoding="utf-8")
    except Unobtainable as reason:
        pytest.skip(str(reason))
    for width in WIDTHS:
        for dark in (False, True):
            browser.open(file, width=width, dark=dark)
            assert browser.told() == ([file.as_uri()], [])
            assert browser.run("typeof pwned + document.images.length") == "undefined0"
            assert browser.run("document.documentElement.scrollWidth") == width
            browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            browser.run(axe)
            once = dark == (width == WIDTHS[1])  # of each theme: the contrast takes longer than all else
            assert browser.run(VIOLATIONS.replace("CONTRAST", str(once).lower())) == [], (width, dark)


def test_the_timeline_answers_to_keys(browser, file):
    browser.open(file)
    assert browser.run(VIEW) == ALL
    for _ in range(40):
        browser.press("Tab")
        if browser.run("document.activeElement.id") == "chart":
            break
    assert browser.run("document.activeElement.id") == "chart"
    for keys, view in (
        (("+", "+", "Home"), "In view: 0 to 1.250 M cycles: #UD 1, #GP 124, #PF 1,125."),
        (("End",), "In view: 3.749 M to 4.999 M cycles: "),
        (("ArrowLeft",), "In view: 3.437 M to 4.687 M cycles: "),
        (("-", "0"), ALL),
    ):
        browser.press(*keys)
        browser.wait(f"{VIEW}.startsWith({view!r})")


def test_where_the_frequency_is_known_times_are_shown(browser, file):
    timed = file.with_name("timed.html")
    timed.write_text(hostile_page(tsc_frequency=2_500_000_000), encoding="utf-8")
    browser.open(timed)
    assert browser.run(VIEW) == ALL.replace("4.999 M cycles", "2.000 ms")
    assert browser.run("document.getElementById('axes').textContent") == " time record number"


def test_the_mouse_zooms_and_the_axis_changes(browser, file):
    browser.open(file)
    left, top, wide = browser.run("(({x, y, width}) => [x, y, width])(canvas.getBoundingClientRect())")
    middle = left + 124 + (wide - 132) / 2
    browser.drag((middle, top + 30), (left + wide - 8, top + 30))
    browser.wait(f"{VIEW}.endsWith('#UD 1, #GP 249, #PF 2,250.')")
    browser.run("document.querySelector('input[value=seq]').click()")
    browser.wait(f"{VIEW}.startsWith('All: 0 to 4,999:')")
    browser.run("document.querySelector('[data-do=in]').click()")
    browser.wait(f"{VIEW}.startsWith('In view: 1,250 to 3,749:')")


def test_the_theme_follows_the_system_until_the_button_is_pressed(browser, file):
    background = "getComputedStyle(document.body).backgroundColor"
    browser.open(file)
    light = browser.run(background)
    browser.theme(True)
    dark = browser.run(background)
    assert light != dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(background) == light
    pixels = browser.run("canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)")
    assert pixels
