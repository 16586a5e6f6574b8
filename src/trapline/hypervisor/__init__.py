"""KVM's role: the VM, its vCPU and the way an intercepted exception travels back to the guest."""
