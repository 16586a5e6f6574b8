"""The protocol's own schema: each message is checked against it, and a property that it does not have is an error.

debugAdapterProtocol.json is the specification's (debugAdapterProtocol.LICENSE.txt).
"""

import functools
import json
from pathlib import Path

import jsonschema

_MESSAGES = ("ProtocolMessage", "Request", "Event", "Response")
_FREE = {"LaunchRequestArguments", "AttachRequestArguments"}
"""Objects whose properties are an adapter's own."""


@functools.cache
def schema():
    """Return the schema, strict, and the names of its requests and events by what they are called in messages."""
    whole = json.loads((Path(__file__).parent / "debugAdapterProtocol.json").read_text())
    commands, events = {}, {}
    for name, definition in whole["definitions"].items():
        parts = definition.get("allOf")
        if name in (*_MESSAGES, *_FREE):
            continue
        if parts is None:
            _make_strict(definition)
            continue
        properties = parts[-1].get("properties", {})
        _make_strict(properties.get("body", {}))
        if name.endswith("Request") and "command" in properties:
            commands[properties["command"]["enum"][0]] = name
        elif name.endswith("Event") and "event" in properties:
            events[properties["event"]["enum"][0]] = name
    return whole, commands, events


def check(message):
    """Raise jsonschema.ValidationError for what the protocol does not have."""
    _, commands, events = schema()
    if message["type"] == "event":
        name = events[message["event"]]
    elif message["type"] == "request":
        name = commands[message["command"]]
    elif not message["success"]:
        name = "ErrorResponse"
    else:
        name = commands[message["command"]].removesuffix("Request") + "Response"
    _validator(name).validate(message)


@functools.cache
def _validator(name):
    return jsonschema.Draft4Validator({"$ref": f"#/definitions/{name}", "definitions": schema()[0]["definitions"]})


def _make_strict(part):
    if isinstance(part, list):
        for each in part:
            _make_strict(each)
    elif isinstance(part, dict):
        if "properties" in part and "allOf" not in part:
            part.setdefault("additionalProperties", False)
        for each in part.values():
            _make_strict(each)
