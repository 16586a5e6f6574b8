"""The formats of guests, each read from a file's first bytes: what it is, and what its loader must know."""
