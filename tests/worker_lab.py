"""Clients and a server in network namespaces of their own, and between them a node of two workers as a program."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from service_harness import Service, service

netns = pytest.importorskip("edgeos.netns", reason="needs pyroute2")

NODE = """
[node]
workers = 2
drain_timeout = "0"
[port.lan]
kind = "{kind}"
device = "lan"
[port.wan]
kind = "{kind}"
device = "wan"
[template.fw]
appliance = "firewall"
config = "allow all"
[chain.edge]
path = ["lan", "fw", "wan"]
[[rule]]
match = "ip"
chain = "edge"
[[rule]]
match = "any"
chain = "edge"
"""

NETWORKS = {socket.AF_INET: ("10.79.0.", "10.79.0.200"), socket.AF_INET6: ("fd00:79::", "fd00:79::200")}
CLIENTS = range(1, 13)
PORT = 7979
WAIT_SECONDS = 30


def address(family: int, client: int) -> str:
    return f"{NETWORKS[socket.AddressFamily(family)][0]}{client}"


class Lab:
    """Client and server in namespaces of their own, the node's between them."""

    def __init__(self, stack: ExitStack, kind: str) -> None:
        self.client, self.node, self.server = (stack.enter_context(netns.Namespace()) for _ in range(3))
        self.kind = kind
        if kind != "tap":
            netns.join(self.client, "lan0", self.node, "lan")
            netns.join(self.server, "wan0", self.node, "wan")
            for device in ("lan", "wan"):
                self.node.set_up(device)
            self.set_up("lan0", "wan0")

    def set_up(self, client_device: str, server_device: str) -> None:
        prefixes = {socket.AF_INET: 24, socket.AF_INET6: 64}
        clients = [f"{address(family, client)}/{length}" for family, length in prefixes.items() for client in CLIENTS]
        servers = [f"{NETWORKS[family][1]}/{length}" for family, length in prefixes.items()]
        self.client.set_up(client_device, clients)
        self.server.set_up(server_device, servers)

    def move_taps(self) -> None:
        self.node.move("lan", self.client)
        self.node.move("wan", self.server)
        self.set_up("lan", "wan")

    @contextmanager
    def running(self, folder: Path) -> Iterator[Service]:
        with self.node.entered(), service(folder, NODE.format(kind=self.kind)) as node:
            node.running("--json", "result.json")
            if self.kind == "tap":
                self.move_taps()
            yield node

    def echo(self, family: int) -> socket.socket:
        with self.server.entered():
            server = socket.socket(family, socket.SOCK_DGRAM)
        server.settimeout(WAIT_SECONDS)
        server.bind((NETWORKS[socket.AddressFamily(family)][1], PORT))
        return server

    def client_socket(self, family: int, client: int) -> socket.socket:
        with self.client.entered():
            made = socket.socket(family, socket.SOCK_DGRAM)
        made.settimeout(0.5)
        made.bind((address(family, client), 0))
        return made

    def asks(self, server: socket.socket, client: socket.socket, data: bytes) -> bool:
        """A question and its answer, asked again when it is lost: addresses may have to be resolved first."""
        for _ in range(60):
            client.sendto(data, (NETWORKS[client.family][1], PORT))
            try:
                asked, sender = server.recvfrom(100)
                server.sendto(asked, sender)
                if client.recv(100) == data:
                    return True
            except TimeoutError:
                continue
        return False
