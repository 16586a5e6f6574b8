"""Known defects of symbols."""

from typing import Final

from tools.defect import Defect

from .reasons import NAMING, WATCHING

_SYMBOLS: Final = "src/trapline/symbols"
_MACHINE_TESTS: Final = ("tests/session/test_machine.py", "-m", "not qemu")

DEFECTS: Final = (
    Defect("71", "a breakpoint by name without the slide", "src/trapline/symbols/files.py",
           "return found[name] + file.slide", "return found[name]", WATCHING, _MACHINE_TESTS),
    Defect("117", "functions of a portable executable where it is not", f"{_SYMBOLS}/pe.py",
           "header.image_base + at, size or stored", "at, size or stored", NAMING, ("tests/symbols/test_pe.py",)),
    Defect("118", "what belongs to a symbol of COFF read as symbols", f"{_SYMBOLS}/pe.py",
           "            next(rows, None)", "            pass", NAMING, ("tests/symbols/test_pe.py",)),
    Defect("119", "a symbol file not moved to its image", f"{_SYMBOLS}/loaded.py", "image.base - file.link_base",
           "image.base", NAMING, ("tests/symbols/test_efi_images.py",)),
    Defect("120", "a pointer to the table of images without its checksum", f"{_SYMBOLS}/efi_images.py",
           "signature != _SIGNATURE or zlib.crc32(found[:16] + bytes(8)) != checksum", "signature != _SIGNATURE",
           NAMING, ("tests/symbols/test_efi_images.py",)),
    Defect("121", "a call at the end of its function taken for the next one", f"{_SYMBOLS}/call_frames.py",
           "row(found[-1] - (len(found) > 1))", "row(found[-1])", NAMING, ("tests/symbols/test_call_frames.py",)),
    Defect("122", "frames that do not ascend", f"{_SYMBOLS}/call_frames.py",
           ' or frame <= values[names.index("rsp")]', "", NAMING, ("tests/symbols/test_call_frames.py",)),
    Defect("123", "the row of the instruction before", f"{_SYMBOLS}/call_frames.py", 'if row["pc"] > address:',
           'if row["pc"] >= address:', NAMING, ("tests/symbols/test_call_frames.py",)),
)  # fmt: skip
