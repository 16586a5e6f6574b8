"""The boundary between the hypervisor and what executes VMRUN: protocols and plain data."""
