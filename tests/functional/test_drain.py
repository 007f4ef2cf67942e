"""A node that drains: clients that are there go on, new ones are dropped, and counted as such."""

from __future__ import annotations

import edgeos
from edgeos import testing


def test_known_clients_go_on_and_new_ones_are_dropped_as_draining() -> None:
    with testing.memory_port("lan") as lan, testing.memory_port("wan") as wan, edgeos.Node() as node:
        node.add_port(lan)
        node.add_port(wan)
        node.add_template(edgeos.TemplateSettings(name="wire", appliance="bridge"))
        node.add_chain(edgeos.ChainSettings(name="edge", path=("lan", "wire", "wan")))
        node.add_rule("ip", chain="edge")

        def pass_on(client: str, port: int) -> int:
            lan.inject(testing.udp_packet(client, "192.0.2.1", b"a question", dport=port))
            while node.run_once():
                pass
            return len(wan.take())

        assert pass_on("10.0.0.1", 53) == 1
        node.drain()
        assert pass_on("10.0.0.1", 53) == 1
        assert pass_on("10.0.0.1", 54) == 1, "a new flow of a client that is there"
        assert pass_on("10.0.0.2", 53) == 0
        statistics = node.statistics()
        assert statistics.dropped == {"draining": 1}
        assert statistics.balance == 0
