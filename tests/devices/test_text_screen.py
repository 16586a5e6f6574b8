from trapline.devices.text_screen import COLUMNS, LINES, SIZE, screen_lines


def test_the_text_without_the_lines_around_it():
    memory = bytearray(b"\0\x07" * (COLUMNS * LINES))
    for place, text in ((2, "Hello"), (4, "  world \x01")):
        memory[2 * COLUMNS * place : 2 * COLUMNS * place + 2 * len(text) : 2] = text.encode("cp437")
    assert len(memory) == SIZE
    assert screen_lines(bytes(memory)) == ("Hello", "", "  world")


def test_an_empty_screen():
    assert screen_lines(bytes(SIZE)) == screen_lines(b" \x07" * (SIZE // 2)) == screen_lines(b"") == ()
