from trapline.report.fold import PLAIN, Width, fold, fold_line

TEXT = "#PF   cpl 0  0008:000000000010131c  address 0x110ff8  error 0x2: write, not present, supervisor"


def test_a_line_is_folded_where_lines_are_and_whole_elsewhere():
    assert fold_line(TEXT, "  ", PLAIN) == [f"  {TEXT}"]
    first, second = fold_line(TEXT, "  ", Width(70, 70))
    assert first.startswith("  #PF   cpl 0  0008:000000000010131c")
    assert second.startswith("      ")
    assert max(len(first), len(second)) <= 70


def test_prose_is_indented_under_its_start():
    lines = fold("word " * 40, "  -> ", 60)
    assert lines[0].startswith("  -> word")
    assert all(line.startswith("     word") for line in lines[1:])
    assert 50 < max(map(len, lines)) <= 60
