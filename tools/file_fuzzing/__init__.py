"""Random damage to files of every kind that is read: each is read, or refused in a sentence, within bounds.

A file is named by its kind, a seed and a number. `originals` are whole files, made by code; `mutations` damages them;
`readers` reads one as a command does; `worker` reads many in a process with bounds.
"""

import os

# pyarrow's own allocator reserves 1 GiB of addresses at once, which the bound of memory of the worker counts.
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
