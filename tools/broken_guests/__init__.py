"""Small kernels that are broken in one place at random, to judge what trapline tells of each.

`generate` builds a `Broken` guest from a seed: the image with the fault, its twin without it, and what may be told.
They have handlers for all exceptions, so that most halt, loop or end in one instead of shutting down.
"""
