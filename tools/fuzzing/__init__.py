"""Random guest programs, to compare processors and masks with: each is a seed, a mode and a number.

`generate` builds a `Program`: a state of the CPU and an arena of memory with tables, handlers and code, mostly valid.
A `Runner` executes programs through the hypervisor on any processor, `first_difference` compares two runs, and
`departures` names the differences that are QEMU's or Unicorn's own, each with its proof.
"""
