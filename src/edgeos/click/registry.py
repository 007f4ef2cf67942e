"""The element classes that there are: every subclass of `Element` with ports in a module of `edgeos.click.elements`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from edgeos.click import elements
from edgeos.click.element import Element


@functools.cache
def element_classes() -> Mapping[str, type[Element]]:
    """The element classes by their names, in the order of the alphabet."""
    for module in pkgutil.iter_modules(elements.__path__):
        importlib.import_module(f"{elements.__name__}.{module.name}")
    found = {cls.__name__: cls for cls in _subclasses(Element) if cls.ports}
    return MappingProxyType(dict(sorted(found.items(), key=lambda item: item[0].lower())))


def _subclasses(of: type[Element]) -> Iterator[type[Element]]:
    for cls in of.__subclasses__():
        if cls.__module__.startswith(f"{elements.__name__}."):
            yield cls
        yield from _subclasses(cls)
