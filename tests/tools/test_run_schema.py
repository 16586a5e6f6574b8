from tools.run_schema import PATH, schema, text


def test_the_schema_is_up_to_date():
    assert PATH.read_text(encoding="utf-8") == text(), "`make docs` writes it"


def test_members_have_the_texts_of_their_docstrings():
    definitions = schema()["$defs"]
    assert definitions["CrashDocument"]["properties"]["source"]["description"].startswith("File and line: `lib/str")
    assert definitions["OriginDocument"]["properties"]["cs"]["description"] == "The selector."
    assert not any("\n" in definition["description"] for definition in definitions.values())
