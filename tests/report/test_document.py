"""The JSON of runs, real ones where a guest can end so by itself, against the schema that is in the documentation."""

import copy
import json
from pathlib import Path
from typing import get_args

import pytest
from jsonschema import Draft202012Validator

from tests.programs.kernel import build_kernel
from trapline.api import run
from trapline.errors import ProcessorLost
from trapline.machine.processor import Outcome
from trapline.machine.scripted import ScriptedProcessor, vmexit
from trapline.report.document import EndingName, OutcomeName
from trapline.report.result import Ending
from trapline.trace import exception_record

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "run.schema.json").read_text(encoding="utf-8"))
RESET = b"\xb0\xfe\xe6\x64\xeb\xfe"
"""MOV AL, 0xFE; OUT 0x64, AL; JMP $"""
LOOP = b"\xeb\xfe"
HALT = b"\xfa\xf4"


def interrupted(processor):
    raise KeyboardInterrupt


def code(data, **options):
    return run(data, entry_mode=32, **options)


def scripted(*steps, **options):
    return run(processor=ScriptedProcessor([Outcome.RESET, vmexit(0x46), *steps]), exceptions="all", **options)


@pytest.fixture(scope="module")
def validator():
    """The schema, which here allows no other members than those it names."""
    strict = copy.deepcopy(SCHEMA)
    for definition in strict["$defs"].values():
        definition["additionalProperties"] = False
    Draft202012Validator.check_schema(strict)
    return Draft202012Validator(strict)


@pytest.mark.parametrize(
    ("start", "ending"),
    [
        (lambda: scripted(Outcome.OFF), Ending.OFF),
        (lambda: code(RESET), Ending.RESET),
        (lambda: run("sample:df", exceptions="all"), Ending.DEBUG_EXIT),
        (lambda: code(HALT), Ending.HALTED),
        (lambda: run("sample:no-idt", exceptions="all"), Ending.SHUTDOWN),
        (lambda: run("sample:no-idt", exceptions="none"), Ending.SHUTDOWN),
        (lambda: run("sample:pf", exceptions="all", fail_on=["pf"]), Ending.RULE),
        (lambda: run("sample:pf", exceptions="all", stop=["pf"]), Ending.EXCEPTION),
        (lambda: code(LOOP, timeout=0.2), Ending.TIMEOUT),
        (lambda: scripted(interrupted), Ending.INTERRUPTED),
        (lambda: scripted(ProcessorLost("gone")), Ending.FAILED),
        (lambda: scripted(vmexit(0x8E), expect=["pf=2"]), Ending.FAILED),
    ],
)
def test_a_document_is_as_the_schema_says(validator, start, ending):
    done = start()
    assert done.ending is ending
    document = json.loads(json.dumps(done.to_json()))
    validator.validate(document)
    assert document["ending"] == ending.name.lower()
    assert (document["crash"] is None) is (ending in (Ending.OFF, Ending.DEBUG_EXIT, Ending.FAILED))


def test_a_document_with_names_and_source_lines(validator, tmp_path):
    if missing := build_kernel.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    kernel = build_kernel.build(tmp_path, WATCHPOINT=0, RF=0, CRASH=1)
    document = run(kernel.image, symbols=[str(kernel.symbols)], timeout=60).to_json()
    validator.validate(document)
    assert document["crash"]["symbol"].startswith("crash+")
    assert document["counts"][0]["first_source"].startswith("selftest.c:")
    assert document["crash"]["callers"] or any("symbol" in entry for entry in document["crash"]["stack"])


@pytest.mark.parametrize(
    ("path", "value"), [("ending", "over"), ("version", 2), ("recorded", "1"), ("counts", None), ("crash", {})]
)
def test_the_schema_refuses_what_is_something_else(path, value):
    document = scripted(Outcome.OFF).to_json()
    assert Draft202012Validator(SCHEMA).is_valid(document)
    assert not Draft202012Validator(SCHEMA).is_valid({**document, path: value})


def test_the_names_are_those_that_there_are():
    assert list(get_args(EndingName)) == [ending.name.lower() for ending in Ending]
    assert list(get_args(OutcomeName)) == [outcome.value for outcome in exception_record.Outcome]
