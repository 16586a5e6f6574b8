"""Tools for tests: the pytest plugin, and the checks that any implementation of `machine.Processor` must pass."""
