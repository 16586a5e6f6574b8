"""The host polls as long as that helps."""

from trapline.processors.qemu.spin import MOST, Spin


def waits(spin, answers):
    """Let waits end as `answers` say, and return how often each of them read the mailbox."""
    reads = []
    for found in answers:
        reads.append(spin.begin())
        spin.found() if found else spin.in_vain()
    return reads


def test_what_helps_goes_on():
    assert waits(Spin(), [True] * 3) == [MOST] * 3


def test_what_is_in_vain_becomes_less_and_ends():
    reads = waits(Spin(), [False] * 10)
    assert reads == sorted(reads, reverse=True)
    assert reads[0] == MOST
    assert reads[-1] == 0


def test_it_comes_back_where_it_helps():
    spin = Spin()
    assert waits(spin, [False, False, True, True, True, True])[1:] == [
        MOST // 4,
        MOST // 16,
        MOST // 8,
        MOST // 4,
        MOST // 2,
    ]


def test_from_time_to_time_it_is_tried_again():
    spin = Spin()
    reads = waits(spin, [False] * 600)
    again = [number for number, count in enumerate(reads) if count == MOST]
    assert again[0] == 0
    assert len(again) == 3
    assert again[2] - again[1] > 200
    while spin.begin() == 0:
        spin.in_vain()
    spin.found()
    assert spin.begin() == MOST
