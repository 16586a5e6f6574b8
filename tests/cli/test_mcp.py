"""`trapline mcp` before it serves."""

from trapline.session import extras


def test_the_sdk_is_missing(trapline_command, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    done = trapline_command("mcp")
    assert (done.status, done.out) == (1, "")
    assert done.err == "trapline: mcp is not installed; install it with: pip install 'trapline[mcp]'\n"


def test_a_directory_that_is_none(trapline_command):
    done = trapline_command("mcp", "--allow", "x" * 5000)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("trapline: --allow x")


def test_not_all_files_are_allowed_by_accident(trapline_command, monkeypatch):
    monkeypatch.chdir("/")
    done = trapline_command("mcp")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("trapline: mcp was started in /")
