"""Connects the parts of a run: guest, processor, hypervisor, recorder and symbols."""
