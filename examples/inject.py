"""Give the guest another exception than the one that it raised."""

import sys

from trapline import Decision, ExceptionExit, Machine, Vector, inject

with Machine("sample:ud", exceptions="all", console=sys.stdout.buffer.write) as m:

    @m.on(Vector.UD)
    def fault(exc: ExceptionExit) -> Decision | None:
        return inject(Vector.GP, error_code=0x18)

    stop = m.run(timeout=60)
    sys.stdout.flush()
    for exc in m.exceptions:
        print(f"{exc.vector.mnemonic} was {exc.outcome.value}: the guest got {exc.injected}")
    print(stop.reason.value)
