"""Numbers of devices: a name gets the next free number when it is first met; digits are the number itself.

Device 0 is what stands before the stage in its chain, the client's side; device k from 1 on is its out port k - 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DEVICES_MAX = 16


class Devices:
    """The devices that a configuration names."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of a device."""
        if name not in self._numbers:
            taken = set(self._numbers.values())
            free = next(number for number in range(len(taken) + 1) if number not in taken)
            self._numbers[name] = int(name) if name.isdigit() else free
        return self._numbers[name]

    def numbers(self) -> Mapping[str, int]:
        """The number of each device by its name."""
        return MappingProxyType(self._numbers)
