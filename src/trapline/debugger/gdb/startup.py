"""The commands with which gdb is started on a guest."""

from pathlib import Path
from typing import Final

from trapline.api import Machine
from trapline.symbols import Names

from .endpoint import Endpoint

_HOOK: Final = """\
define hook-stop
  if $_thread != 0
    if $stale == 1
      unset tdesc filename
    end
  end
end
document hook-stop
The guest may have changed its mode: read its registers and disassemble its code as it is now.
end
"""

_DISASSEMBLER: Final = """\
python
try:
    import gdb.disassembler
except ImportError:
    pass
else:
    class _OfGuest(gdb.disassembler.Disassembler):
        def __init__(self):
            super().__init__("trapline")
        def __call__(self, info):
            connection = gdb.selected_inferior().connection
            if not hasattr(connection, "send_packet"):
                return None
            flavor = gdb.parameter("disassembly-flavor")
            answer = connection.send_packet("qTrapline.Disassemble:%x,%s" % (info.address & (1 << 64) - 1, flavor))
            if not answer or b";" not in answer:
                return None
            length, _, text = answer.decode().partition(";")
            return gdb.disassembler.DisassemblerResult(int(length, 16), bytes.fromhex(text).decode())
    gdb.disassembler.register_disassembler(_OfGuest())
end
"""
"""For code of another size than the description is for. gdb 13 has what it needs."""


def startup_file(folder: Path, machine: Machine, endpoint: Endpoint) -> Path:
    """Write a file of commands that load the guest's symbols and connect, and return its path."""
    path = folder / "startup"
    lines = [*symbol_commands(machine.session.names), f"target remote {endpoint}", _HOOK, _DISASSEMBLER]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def symbol_commands(names: Names) -> list[str]:
    """Return the commands of gdb that load the guest's symbols; a kernel whose slide is not found yet is left out.

    None is `file`: gdb would take its architecture.
    """
    lines: list[str] = []
    for file in names.files:
        path = Path(file.name)
        if path.is_file() and _is_elf(path):
            command = "with confirm off -- add-symbol-file" if lines else "symbol-file"
            lines.append(f"{command} {_quoted(path)} -o {file.slide:#x}")
    return lines


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _quoted(path: Path) -> str:
    escaped = str(path.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
