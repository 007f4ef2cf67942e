"""Listening sockets that several worker processes share: made by their supervisor, passed on to the workers.

Of each TCP and UDP listener every worker has a socket of its own, and the kernel chooses among them by the client's
address: a client always comes to the same worker, also after a worker was started again with the same number. Who comes
meanwhile waits in the socket. Where a PROXY header names the client, the kernel cannot see it and shares out
connections evenly.
"""

from __future__ import annotations

from edgeos import _native
from edgeos.errors import PortError
from edgeos.port import split_endpoint
from edgeos.settings import PortSettings


def make_listening_sockets(port: PortSettings, workers: int) -> list[int]:
    """One listening socket for each worker, in their order; the caller closes them. Raises PortError."""
    _, address, number = split_endpoint(port.listen or "")
    try:
        return _native.open_listening_group(
            port.kind,
            address,
            number,
            sockets=workers,
            by_source=not port.proxy_protocol,
            backlog=port.backlog,
            mode=port.mode,
        )
    except (RuntimeError, OSError) as error:
        raise PortError(f"port.{port.name}: {error}") from None
