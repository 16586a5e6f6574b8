"""trapline: a hypervisor in Python that shows every guest exception before the guest sees it."""

# Rooms, and who may import whom. Arrows only point down; neighbours on one line do not know each other.
#
#   cli                                 command line; knows everything, is known by nobody
#   session                             one run wired together
#   explain | scene                     why a delivery failed: evidence and proof · code, callers and stack of a stop
#   trace | testing                     records, files, queries · what a processor must pass
#   hypervisor | processors | guests    KVM's role · who executes VMRUN · images, samples
#     | symbols                         · names and lines of addresses
#   asm                                 machine code written as Python, and guest code decoded
#   machine                             the boundary: protocols and plain data
#   arch                                what the manuals say, as data and pure functions
#   devices | errors                    a PC's chips, clocked from outside · the tree of errors
#
# `lint-imports` checks this, and tests/test_house.py runs it. Importing `trapline` loads no heavy library.

__version__ = "0.1.0"

__all__ = ["__version__"]
