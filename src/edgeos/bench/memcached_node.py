"""A node with the memcached appliance for each client, as a process of its own, so that its memory can be read.

    python -m edgeos.bench.memcached_node CLIENTS

prints the port on which it listens, runs until its input ends, and prints one line of JSON about what it did.
"""

from __future__ import annotations

import json
import sys

from edgeos import _native
from edgeos.descriptors import require_descriptors
from edgeos.node import Node
from edgeos.settings import ChainSettings, Grants, Manifest, NodeSettings, PortSettings, TemplateSettings

SPARE = 16
READY_MAX = 8
"""How many FWPs without a client are kept, which count as memory too."""
_HOUR_NS = 3600 * 10**9
_STACK = 4608  # bytes; the hot end of the stack lies beside the variables, see the appliance's README


def _run(clients: int) -> None:
    connections = 2 * clients + SPARE  # those of the generator before may still be closing
    require_descriptors(
        Manifest(ports=(PortSettings(name="clients", kind="tcp", listen="127.0.0.1:1", max_connections=connections),))
    )
    port = _native.open_listener("clients", "tcp", "127.0.0.1", 0, backlog=4096, max_connections=connections)
    template = TemplateSettings(
        name="cache",
        appliance="memcached",
        grant=Grants(random=True),
        stack=_STACK,
        ready_low=1,
        ready_high=READY_MAX,
        ready_max=READY_MAX,
    )
    with Node(NodeSettings(max_flows=4 * clients + 64)) as node:
        node.add_port(port)
        node.add_template(template)
        node.add_chain(
            ChainSettings(
                name="caches",
                path=("clients", "cache"),
                isolate="client",
                max_fwps=clients + SPARE,
                idle_timeout_ns=_HOUR_NS,
            )
        )
        node.add_rule("any", chain="caches")
        node.start()
        print(port.port_number, flush=True)
        sys.stdin.read()
        statistics = node.stop()
    chain = statistics.chain("caches")
    print(
        json.dumps(
            {"balance": statistics.balance, "activations": chain.activations, "kills": sum(chain.kills.values())}
        ),
        flush=True,
    )


if __name__ == "__main__":
    _run(int(sys.argv[1]))
