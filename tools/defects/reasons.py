"""Why a whole guest sees nothing of a defect."""

from typing import Final

AFTER: Final = "a guest sees nothing of what reads its records"
LOADING: Final = "the guests of the matrix are raw code and disks that QEMU loads"
WATCHING: Final = "the matrix compares guests whose exceptions are all forwarded"
STOPPING: Final = "the guests of the matrix run without breakpoints and watchpoints"
ONE_CPU: Final = "the guests of the matrix have one CPU"
BOOTED: Final = "its guests boot from a BIOS"
NAMING: Final = "its guests are compared by what they do, not by the names of addresses"
NO_DEBUGGER: Final = "its guests run without a debugger"
NO_GUEST: Final = "its guests depend neither on the model of delivery nor on explanations"
UNDISTURBED: Final = "no signal comes while its guests run, and the host keeps up with them"
