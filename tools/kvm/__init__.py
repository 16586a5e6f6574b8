"""KVM on AMD, tested anywhere: QEMU's TCG plays an AMD host, in which a Debian kernel nests KVM."""
