from types import SimpleNamespace

import pytest

from trapline.session.placing import Placer
from trapline.symbols import Names


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
