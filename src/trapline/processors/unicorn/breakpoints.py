"""Breakpoints: hooks of Unicorn at linear addresses, which the guest cannot see."""

from typing import Final

from .binding import Binding
from .hooks import Hooks
from .pending import Pending
from .stops import Stop

_UNWANTED_CALLS: Final = 100
"""How often hooks that are not wanted may be called before they are removed."""


class Breakpoints:
    """Stops the CPU with BREAKPOINT before the instruction at an address is executed.

    A hook that is not wanted any more may stay for a while: to get past a breakpoint the hypervisor takes it out for
    one instruction, and with each hook that comes or goes all translated code must be forgotten.
    """

    def __init__(self, binding: Binding, hooks: Hooks, pending: Pending) -> None:
        self._binding, self._hooks, self._pending = binding, hooks, pending
        self._wanted: frozenset[int] = frozenset()
        self._numbers: dict[int, int] = {}
        """The hooks, by address: those of `_wanted`, and some from before."""
        self._wasted = 0
        """How often hooks were called that are not wanted."""

    def set(self, addresses: frozenset[int]) -> None:
        """Stop at these linear addresses, and at no other."""
        self._wanted = addresses
        if not addresses <= self._numbers.keys():
            self._install()

    def tidy(self) -> None:
        """Remove hooks that are not wanted, if they cost time. While the CPU is stopped."""
        if self._wasted > _UNWANTED_CALLS:
            self._install()

    def _install(self) -> None:
        binding, numbers = self._binding, self._numbers
        binding.restore()  # Unicorn looks for the code of a hook in the address space that the CPU is in
        for address in numbers.keys() - self._wanted:
            binding.unhook(numbers.pop(address))
        for address in self._wanted - numbers.keys():
            numbers[address] = binding.hook_address(address, self._on_code)
        binding.forget_code()
        self._wasted = 0

    def _on_code(self, _: object, address: int, __: int, ___: object) -> None:
        if address in self._wanted:
            self._hooks.refuse(Stop.BREAKPOINT)
            return
        self._wasted += 1
        if self._wasted > _UNWANTED_CALLS:
            self._pending.interrupt()
