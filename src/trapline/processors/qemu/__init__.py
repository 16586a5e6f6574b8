"""Stock QEMU as a processor: a monitor of a few hundred bytes runs the whole PC as its SVM guest.

The firmware blob that QEMU starts enters long mode, enables SVM and hands over to the monitor, which lives in memory
that QEMU and this process share. The monitor executes VMRUN and hands the exits that it cannot
handle to this process, by a doorbell.
"""
