import threading
from types import SimpleNamespace

import pytest

from trapline.session.placing import Placer
from trapline.symbols import Names

LIMIT = 60


class Images:
    def __init__(self):
        self.over, self.followed = False, 0

    def follow(self, read, end):
        self.followed += 1

    def end(self):
        self.over = True


def processor(cpl, rip):
    save = SimpleNamespace(cpl=cpl, rip=rip)
    return SimpleNamespace(vmcb=SimpleNamespace(save=save), memory=SimpleNamespace(read=None, size=1 << 28))


@pytest.mark.parametrize(("cpl", "rip"), [(3, 0x401000), (0, 0xFFFF_FFFF_8100_0000)])
def test_the_images_of_firmware_are_followed_until_an_operating_system_runs(cpl, rip):
    images = Images()
    placer = Placer(Names(), images)
    placer.place(processor(0, 0xF05_9731))
    placer.place(processor(0, 0xF05_9731))
    assert (images.followed, images.over) == (2, False)
    placer.place(processor(cpl, rip))
    placer.place(processor(0, 0xF05_9731))
    assert (images.followed, images.over) == (2, True)


class Guest:
    """Runs where it is told to, and stops for a call at once."""

    def __init__(self, rip):
        self.vcpu = SimpleNamespace(processor=processor(0, rip))

    def call_while_stopped(self, callback):
        callback(self.vcpu)
        return True


def test_records_wait_while_there_will_be_another_attempt():
    tried = threading.Event()
    placer = Placer(Names(), Images())
    assert not placer.is_trying()
    with placer.placing(Guest(0xF05_9731), tried.set):
        assert placer.is_trying()
        assert tried.wait(LIMIT)
        assert placer.is_trying()
    assert not placer.is_trying()
    tried.clear()
    with placer.placing(Guest(0xFFFF_FFFF_8100_0000), tried.set):
        assert tried.wait(LIMIT)
        assert not placer.is_trying()


def test_no_record_waits_where_all_is_placed():
    placer, calls = Placer(Names(), None), []
    with placer.placing(Guest(0), lambda: calls.append("at the end")):
        assert not placer.is_trying()
    assert calls == ["at the end"]
