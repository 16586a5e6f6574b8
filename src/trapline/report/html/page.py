"""Makes the page: templates of Jinja, and a style sheet and a script that the page's own policy names by their hashes.

Whatever a guest wrote is escaped by the templates, and its control characters are shown as escapes. Should something
slip through all the same, the policy keeps it from running and from loading anything (Content-Security-Policy 3).
"""

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from trapline.arch.vectors import VECTORS, Vector, mnemonic
from trapline.errors import MissingExtra
from trapline.trace.overview import Place
from trapline.typed import printable

from .decode import row
from .embedded import timeline
from .values import Page

if TYPE_CHECKING:
    from jinja2 import Environment

_PLACES: Final = 40
"""How many places are shown of all vectors together."""
_OF_EACH: Final = 3
"""How many places are shown of each vector at least."""
_FUNCTIONS: Final = 20
_SHARES: Final = 10
_CLASSES: Final = {
    Vector.PF: "page",
    Vector.DB: "debug",
    Vector.BP: "debug",
    Vector.NM: "fpu",
    Vector.MF: "fpu",
    Vector.XM: "fpu",
    Vector.UD: "code",
    Vector.OF: "code",
    Vector.BR: "code",
    Vector.DF: "double",
}
"""How vectors are coloured; others are `fault`."""


def page(values: Page) -> str:
    """Return the page. Raises MissingExtra where Jinja is not installed."""
    overview = values.overview
    templates = _templates()
    style, script = _asset("page.css"), _asset("timeline.js") + _asset("page.js")
    return templates.get_template("page.html").render(
        page=values,
        overview=overview,
        functions=overview.functions[:_FUNCTIONS],
        processes=overview.processes[:_SHARES],
        places=_places(overview.places),
        rows=[row(record, values.lookup) for record in values.last],
        timeline=timeline(overview, values.lookup, values.tsc_frequency),
        lookup=values.lookup or (lambda _: None),
        style=style,
        script=script,
        policy=f"default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'",
    )


def _places(places: Iterable[Place]) -> list[Place]:
    """Return the places with the most, and those of each vector with the most."""
    shown: list[Place] = []
    seen: dict[int, int] = {}
    for number, place in enumerate(places):
        seen[place.vector] = seen.get(place.vector, 0) + 1
        if number < _PLACES or seen[place.vector] <= _OF_EACH:
            shown.append(place)
    return shown


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _templates() -> "Environment":
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtra("jinja2", "html") from None
    found = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    found.filters |= {
        "hex": lambda value: f"{value:#x}",
        "number": lambda value: f"{value:,}",
        "share": lambda part, whole: f"{part / whole:.1%}" if whole else "",
        "width": lambda part, whole: f"{100 * part / whole:.2f}" if whole else "0",
        "mnemonic": mnemonic,
        "vector_name": lambda vector: VECTORS[vector].name if vector < len(VECTORS) else "interrupt",
        "vector_class": lambda vector: _CLASSES.get(vector, "fault"),
    }
    return found


def _finalize(value: object) -> object:
    """Show control characters as escapes; markup of our own is made by templates alone."""
    return printable(value) if type(value) is str else value
