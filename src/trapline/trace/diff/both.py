"""The same work for each of two traces, on two cores: numpy and Arrow let both run."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_S = TypeVar("_S")
_T = TypeVar("_T")


def both(work: Callable[[_S], _T], a: _S, b: _S, *, at_once: bool = True) -> tuple[_T, _T]:
    """Return what a function returns for each of two values; unless `at_once`, for one after the other.

    Where it raises for both, the first one's error is raised. It has ended for both in any case.
    """
    if not at_once:
        return work(a), work(b)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(work, b)
        return work(a), second.result()
