"""Run a guest, then read its exceptions and why it shut down."""

import trapline

run = trapline.run("sample:stack-overflow", exceptions="all", timeout=60)

print(f"{run.ending.value}; {run.recorded} exceptions; exit code {run.exit_code}")
for exc in run.exceptions:
    print(f"{exc.vector.mnemonic} at {exc.rip:#x}, error code {exc.error_code}, while delivering {exc.vectoring}")
for exc in run.exceptions.where("vector == pf and error_code & 2"):
    print(f"a write to {exc.address:#x} with rsp {exc.rsp:#x}")
if run.explanation and run.crash:
    print(run.explanation.cause)
    print("cr3 was", hex(run.crash.registers.cr3))
