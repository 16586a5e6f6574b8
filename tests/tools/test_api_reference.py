"""The reference has every member of the public names; tests/test_house.py says whether it is up to date."""

import inspect
from enum import Enum

import pytest

from tools.api_reference.page import find, marked_names, members_of
from tools.api_reference.source import Kind, constant, constructor, function, members
from trapline.api import inject
from trapline.session import settings
from trapline.session.settings import MachineOptions, Outlets, Settings

CLASSES = sorted((name for name in marked_names() if inspect.isclass(find(name))), key=lambda name: name)


@pytest.mark.parametrize("name", CLASSES)
def test_every_member_says_what_it_is(name):
    cls = find(name)
    for member in members_of(cls):
        said_by_the_value = issubclass(cls, Enum) and member.name in cls.__members__
        assert member.doc or said_by_the_value or not member.type, member.name


def test_the_options_are_those_of_the_settings():
    assert MachineOptions.__annotations__.keys() == {*vars(Settings()), *vars(Outlets())} - {"guest", "inherited"}
    for member in (*members(Settings), *members(Outlets)):
        assert member.doc or member.name == "guest", member.name


class Example:
    """A class."""

    KIND = "example"
    size: int = 3
    """In bytes."""
    left, right = 1, 2

    def __init__(self, first: "str", *rest: int, key: int | None = None) -> None:
        """Make one."""
        self.first: str = first
        """What came first."""
        self.key = key
        self._rest = rest

    @property
    def width(self) -> int:
        """How wide it is."""
        return self.size

    @width.setter
    def width(self, value: int) -> None:
        self.size = value

    def grow(self, by: int, /, *, slowly: bool = False) -> "Example":
        """Grow."""
        return self

    def _hidden(self) -> None: ...


def test_members_of_a_class():
    assert [tuple(member) for member in members(Example)] == [
        ("KIND", Kind.ATTRIBUTE, "", ""),
        ("size", Kind.ATTRIBUTE, "int = 3", "In bytes."),
        ("left", Kind.ATTRIBUTE, "", ""),
        ("right", Kind.ATTRIBUTE, "", ""),
        ("first", Kind.ATTRIBUTE, "str", "What came first."),
        ("width", Kind.ATTRIBUTE, "int, writable", "How wide it is."),
        ("grow", Kind.METHOD, "grow(by: int, *, slowly: bool = False) -> Example", "Grow."),
    ]
    assert constructor(Example) == ("Example(first: str, *rest: int, key: int | None = None)", "Make one.")


def test_a_function_has_the_name_that_users_know():
    text, doc = function(inject, "inject")
    assert text.startswith("inject(vector: int, error_code: int | None = None")
    assert doc.startswith("Return the decision")


def test_a_constant():
    assert constant(settings.__file__, "AUTO") == ("AUTO = 'auto'", "")
    with pytest.raises(LookupError):
        constant(settings.__file__, "NOTHING")
