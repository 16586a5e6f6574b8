"""The processors, which execute VMRUN. Each is a package; none imports the hypervisor."""
