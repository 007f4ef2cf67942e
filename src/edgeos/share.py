"""Where the data that ships with edgeos lies: the guest header and the appliances."""

from __future__ import annotations

from pathlib import Path

_HEADER = Path("guest", "include", "edgeos.h")


def share(*parts: str) -> Path:
    """Path of shipped data, for example `share("guest", "include")`; the path need not exist.

    In a source checkout that is the checkout itself, so that an edited appliance takes effect at once; in an installed
    package it is the folder `_share` inside the package, laid out alike.
    """
    package = Path(__file__).resolve().parent
    checkout = package.parents[1]
    root = checkout if (checkout / _HEADER).is_file() else package / "_share"
    return root.joinpath(*parts)
