"""The images that a UEFI guest has loaded, as names of their addresses, and the symbol files that belong to them."""

from collections.abc import Iterable
from pathlib import PurePath
from typing import Final

from .efi_images import Image, ImageTable, Read
from .files import Names, Symbols
from .ranges import Function, Ranges

_BOOT: Final = "BOOTX64.EFI"


class LoadedImages:
    """Follows the images of a guest."""

    def __init__(self, names: Names, own: str | None = None) -> None:
        """The names' movable files belong where an image of the same name, but for its suffix, is loaded.

        `own` is the name of the guest's program, which its volume has as BOOTX64.EFI.
        """
        self._names, self._own = names, own
        self._as_linked = [file for file in names.files if file in names.movable]
        self._table: ImageTable | None = None
        self.images: tuple[Image, ...] = ()
        """Those that are loaded, by the names that are shown."""
        self.over = False
        """The firmware's images are not what runs any more."""

    def follow(self, read: Read, end: int) -> None:
        """Read the guest's table if it has changed, and place all names; `end` is where its memory ends."""
        self._table = self._table or ImageTable(read, end)
        if self._table.refresh():
            self.place(self._table.images)

    def end(self) -> None:
        """Forget the images: an operating system has taken over, and uses their addresses for something else."""
        self.over = True
        self.place(())

    def place(self, images: Iterable[Image]) -> None:
        """Place all names by these images."""
        shown = tuple(self._shown(image) for image in images)
        if shown == self.images:
            return
        self.images = shown
        placed: list[tuple[Symbols, int]] = []
        ranges = []
        for image in shown:
            ranges.append(Function(image.base, image.size, image.name, 0))
            stems = {PurePath(name).stem.lower() for name in (image.name, image.module) if name}
            for file in self._names.movable:
                if PurePath(file.name).stem.lower() in stems:
                    placed.append((file, image.base - file.link_base))
        moved = [file for file, _ in placed]
        unmoved = [(file, 0) for file in self._as_linked if file not in moved]
        others = [(file, file.slide) for file in self._names.files if file not in self._names.movable]
        self._names.use([*placed, *unmoved, *others], Symbols("images", Ranges(ranges)) if ranges else None)

    def _shown(self, image: Image) -> Image:
        return image._replace(name=self._own) if self._own and image.name.upper() == _BOOT else image
