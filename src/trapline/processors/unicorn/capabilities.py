"""What Unicorn can do as a processor."""

from typing import Final

from trapline.machine.processor import Capabilities

PHYSICAL_BITS: Final = 40
"""Of the EPYC that Unicorn models."""


def capabilities(*, sets_rf: bool) -> Capabilities:
    """Return what it can do; `sets_rf`: see `Capabilities`."""
    return Capabilities(
        "Unicorn",
        ts_error_code=True,
        lmsle=True,
        hides_svm=False,
        takes_any_efer=False,
        physical_bits=PHYSICAL_BITS,
        sets_rf=sets_rf,
        interrupts_keep_rf=True,
        forwards_set_rf=False,
        delivers_as_modelled=True,
    )
