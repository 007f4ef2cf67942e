"""Numbers of devices: a name gets its place in a given order, or else the next free number when it is first met.

Digits are the number itself.

Device 0 is what stands before the stage in its chain, the client's side; device k from 1 on is its out port k - 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

DEVICES_MAX = 16


class Devices:
    """The devices that a configuration names; `order` are names whose numbers are their places."""

    def __init__(self, order: Sequence[str] = ()) -> None:
        self._order = list(order)
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of a device."""
        if name not in self._numbers:
            self._numbers[name] = int(name) if name.isdigit() else self._place(name)
        return self._numbers[name]

    def _place(self, name: str) -> int:
        if name in self._order:
            return self._order.index(name)
        taken = {*self._numbers.values(), *range(len(self._order))}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def numbers(self) -> Mapping[str, int]:
        """The number of each device by its name."""
        return MappingProxyType(self._numbers)
