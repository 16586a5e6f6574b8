"""Who executes VMRUN. One package a processor; none knows the hypervisor."""
