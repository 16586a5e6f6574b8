"""The boundary between the hypervisor and whoever executes VMRUN: protocols and plain data."""
