"""Debuggers: gdb, editors and agents stop a guest where an exception is raised. All of them drive one `Target`."""
