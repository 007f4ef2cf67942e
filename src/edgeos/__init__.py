"""edgeos: one isolated featherweight process (FWP) per client, in chains, on ordinary Linux.

    import edgeos

    with edgeos.Node() as node:
        node.add_port(edgeos.PortSettings(name="lan", kind="afpacket", device="veth0"))
        node.add_port(edgeos.PortSettings(name="wan", kind="afpacket", device="veth1"))
        node.add_template(edgeos.TemplateSettings(name="fw", appliance="firewall", config=b"allow ip"))
        node.add_chain(edgeos.ChainSettings(name="edge", path=("lan", "fw", "wan"), isolate="client"))
        node.add_rule("any", chain="edge")
        statistics = node.run(duration=10)

`edgeos.testing` has memory ports, packet builders and a fake clock.
"""

from edgeos.chain import Chain
from edgeos.checkpoint import Checkpoint, make_checkpoint
from edgeos.controller import Rule
from edgeos.errors import EdgeosError, GuestError, LimitError, ManifestError, PortError
from edgeos.guest_build import build
from edgeos.handlers import HandlerAnswer
from edgeos.manifest import check_settings, load_manifest, parse_manifest
from edgeos.match import Match, parse_match
from edgeos.node import Node
from edgeos.port import Port, open_port
from edgeos.settings import (
    ChainSettings,
    Grants,
    Manifest,
    NodeSettings,
    PolicyFunction,
    PortSettings,
    RuleSettings,
    TemplateSettings,
    TenantSettings,
    UnmatchedSettings,
    UpstreamSettings,
)
from edgeos.statistics import (
    ChainStatistics,
    ClientStatistics,
    NodeStatistics,
    PortStatistics,
    StageStatistics,
    TenantStatistics,
    UnmatchedStatistics,
)
from edgeos.template import Template
from edgeos.unmatched import Answer, UnmatchedClient

__all__ = [
    "Answer",
    "Chain",
    "ChainSettings",
    "ChainStatistics",
    "Checkpoint",
    "ClientStatistics",
    "EdgeosError",
    "Grants",
    "GuestError",
    "HandlerAnswer",
    "LimitError",
    "Manifest",
    "ManifestError",
    "Match",
    "Node",
    "NodeSettings",
    "NodeStatistics",
    "PolicyFunction",
    "Port",
    "PortError",
    "PortSettings",
    "PortStatistics",
    "Rule",
    "RuleSettings",
    "StageStatistics",
    "Template",
    "TemplateSettings",
    "TenantSettings",
    "TenantStatistics",
    "UnmatchedClient",
    "UnmatchedSettings",
    "UnmatchedStatistics",
    "UpstreamSettings",
    "build",
    "check_settings",
    "load_manifest",
    "make_checkpoint",
    "open_port",
    "parse_manifest",
    "parse_match",
]

__version__: str


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib import metadata  # noqa: PLC0415  (a tenth of a node's memory, for a word that is seldom asked for)

        return metadata.version("edgeos")
    raise AttributeError(f"module 'edgeos' has no attribute '{name}'")
