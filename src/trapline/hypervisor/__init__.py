"""KVM's role: the VM, its vCPU, and what happens to an intercepted exception on its way to the guest."""
