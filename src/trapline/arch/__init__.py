"""The facts of the manuals as data and pure functions: no I/O, no state, standard library only.

"APM" is the AMD64 Architecture Programmer's Manual; `APM 15.20` is section 15.20 of volume 2, System
Programming (publication 24593, revision 3.44). Each fact is written once, with the section that it comes from.
"""
