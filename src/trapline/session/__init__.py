"""One run wired together: a guest, a processor, the hypervisor and what is recorded of it."""
