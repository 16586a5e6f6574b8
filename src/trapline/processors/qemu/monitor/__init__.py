"""The monitor: machine code that runs the guest by VMRUN and hands what it cannot decide to Python."""
