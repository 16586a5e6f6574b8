"""The command line: knows everything, is known by nobody."""
