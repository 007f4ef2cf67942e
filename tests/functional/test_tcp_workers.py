"""TCP within the FWP in a node of two worker processes, whose AF_XDP port passes packets on through veth pairs."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from service_harness import service
from stream_harness import exchange
from tcp_lab import CLIENT_NUMBERS, Lab, needs_afxdp

pytestmark = needs_afxdp

NODE = """
[node]
workers = 2
drain_timeout = "0"
[port.wan]
kind = "afxdp"
device = "dut"
take = ["tcp dst port 7777"]
[template.echo]
source = "{source}"
tcp = true
grant = {{ timer = true, random = true }}
[chain.echo]
path = ["wan", "echo"]
[[rule]]
match = "tcp dst port 7777"
chain = "echo"
"""

ECHO = Path(__file__).parents[2] / "examples" / "echo.c"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_each_client_is_one_workers(tmp_path: Path, family: socket.AddressFamily) -> None:
    sent = [bytes([number]) * 300_000 for number in CLIENT_NUMBERS for _ in range(2)]
    with ExitStack() as stack:
        lab = Lab(stack, relayed=False)
        with lab.node.entered():
            node = stack.enter_context(service(tmp_path, NODE.format(source=ECHO))).running("--json", "result.json")
        sockets = [lab.connect(family, number) for number in CLIENT_NUMBERS for _ in range(2)]
        with ThreadPoolExecutor(len(sockets)) as pool:
            assert list(pool.map(exchange, sockets, sent)) == sent
        for s in sockets:
            s.close()
        workers = [worker["statistics"]["chains"][0] for worker in node.ask("statistics")["workers"]]
        assert sum(worker["activations"] for worker in workers) == len(CLIENT_NUMBERS)
        assert all(worker["activations"] > 0 for worker in workers)
        result = node.end()
    assert result["balance"] == 0
