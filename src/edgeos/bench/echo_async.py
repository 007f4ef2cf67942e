"""An echo service in one process and one event loop: uvloop's, or asyncio's own. Run by `edgeos bench listen`.

python -m edgeos.bench.echo_async uvloop | asyncio ADDRESS: prints the port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from typing import cast

BACKLOG = 4096
_LARGER_BYTES = 1 << 20


class Echo(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way back."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Sends everything back."""
        self.transport.write(data)


async def serve(address: str) -> None:
    """Serves at a port of the address until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, address, 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Runs the loop that the first argument names."""
    # asyncio reads into a new buffer of 256 KiB each time. Once glibc's malloc has got back a larger one, it takes
    # those from its heap; before, it asks the system for each, which would make this peer four times slower.
    bytes(_LARGER_BYTES)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1] == "uvloop":
        import uvloop  # noqa: PLC0415  (optional)

        uvloop.run(serve(sys.argv[2]))
    else:
        asyncio.run(serve(sys.argv[2]))


if __name__ == "__main__":
    main()
