"""Who takes part in the demo and what the node is told about them."""

from __future__ import annotations

from pathlib import Path

from edgeos.share import share

SERVER = "10.77.0.1"
PORT = 8080
CLIENTS = tuple(f"10.77.1.{number}" for number in range(1, 21))
INSPECTED = tuple(f"10.77.2.{number}" for number in range(1, 5))
BLOCKED = "10.77.1.13"
HOSTILE = "10.77.2.2"
EVERYBODY = CLIENTS + INSPECTED
SERVED = tuple(client for client in EVERYBODY if client != BLOCKED)
BYSTANDERS = tuple(client for client in SERVED if client != HOSTILE)
PREFIX_LENGTH = 16
MAGIC = b"EDGEOS-LOOP-FOREVER"
"""What examples/hostile.c cannot stand."""

_MANIFEST = """\
{ports}
[template.fw]
appliance = "firewall"
config = \"\"\"
deny ip src {blocked}
allow tcp dst {server} port {port}
allow icmp dst {server}
deny all
\"\"\"

[template.mon]
appliance = "monitor"

[template.inspect]
source = {hostile}

[template.wire]
appliance = "bridge"

[chain.clients]
path = ["lan", "fw", "mon", "wan"]
isolate = "client"

[chain.inspected]        # the same, and behind it a packet function with a flaw
path = ["lan", "fw", "mon", "inspect", "wan"]
isolate = "client"

[chain.others]           # ARP and whatever else links need
path = ["lan", "wire", "wan"]
isolate = "shared"

[[rule]]
match = "ip src 10.77.1.0/24"
chain = "clients"

[[rule]]
match = "ip src 10.77.2.0/24"
chain = "inspected"

[[rule]]
match = "any"
chain = "others"
"""


def write_manifest(folder: Path, ports: str) -> Path:
    """Writes the demo's manifest with these ports, a piece of TOML that names "lan" and "wan"."""
    path = folder / "demo.toml"
    hostile = "'" + str(share("examples", "hostile.c")) + "'"
    path.write_text(
        _MANIFEST.format(ports=ports, blocked=BLOCKED, server=SERVER, port=PORT, hostile=hostile), encoding="utf-8"
    )
    return path
