"""What a processor is tested with: checks that any implementation of `machine.Processor` must pass."""
