"""The examples on the page about rules are taken as they stand."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import edgeos
from edgeos import testing

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.mark.parametrize("block", blocks("toml"))
def test_manifests(block: str, tmp_path: Path) -> None:
    capture = tmp_path / "in.pcap"
    capture.touch()
    around: dict[str, Any] = {
        "port": {
            "lan": {"kind": "pcap", "read": str(capture)},
            "wan": {"kind": "pcap", "write": str(tmp_path / "out")},
        },
        "template": {"mon": {"appliance": "monitor"}},
        "chain": {name: {"path": ["lan", "mon", "wan"]} for name in ("edge", "dns")},
    }
    around["chain"]["guests"] = {"path": ["lan", "mon", "wan"]}
    (tmp_path / "policy.py").write_text("def decide(client): ...")
    manifest = edgeos.parse_manifest({**around, **tomllib.loads(block)}, tmp_path / "edge.toml")
    assert manifest.rules or manifest.unmatched


def test_the_callback() -> None:
    with testing.memory_port("lan") as lan, testing.memory_port("wan") as wan, edgeos.Node() as node:
        for port in (lan, wan):
            node.add_port(port)
        node.add_template(edgeos.TemplateSettings(name="mon", appliance="monitor"))
        for name in ("edge", "guests"):
            node.add_chain(edgeos.ChainSettings(name=name, path=("lan", "mon", "wan")))
        node.add_tenant(edgeos.TenantSettings(name="acme"))
        (block,) = blocks("python")
        names: dict[str, Any] = {"edgeos": edgeos, "node": node, "customers": {"10.0.0.1": "acme"}}
        exec(block, names)
        client = edgeos.UnmatchedClient(
            address="10.0.0.1",
            client_port=1,
            peer="192.0.2.1",
            peer_port=53,
            protocol=17,
            vlan=None,
            port="lan",
            server_name="",
        )
        assert names["decide"](client) == edgeos.Answer(chain="edge", isolate="client", tenant="acme")
        assert node.statistics().unmatched.asked == 0
