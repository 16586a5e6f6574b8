"""What is in a file of JSON lines."""

import json


def records(text):
    """Return its records."""
    return [found for found in map(json.loads, text.splitlines()) if "type" not in found]


def names(text):
    """Return the names of the exceptions."""
    return [record["name"] for record in records(text)]
