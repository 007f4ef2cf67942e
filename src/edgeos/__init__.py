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

from importlib import metadata as _metadata

from edgeos.checkpoint import Checkpoint, make_checkpoint
from edgeos.errors import EdgeosError, GuestError, LimitError, ManifestError, PortError
from edgeos.guest_build import build
from edgeos.manifest import check_settings, load_manifest, parse_manifest
from edgeos.match import Match, parse_match
from edgeos.node import Node
from edgeos.settings import (
    ChainSettings,
    Manifest,
    NodeSettings,
    PortSettings,
    RuleSettings,
    TemplateSettings,
)
from edgeos.statistics import (
    ChainStatistics,
    ClientStatistics,
    NodeStatistics,
    PortStatistics,
    StageStatistics,
)

__all__ = [
    "ChainSettings",
    "ChainStatistics",
    "Checkpoint",
    "ClientStatistics",
    "EdgeosError",
    "GuestError",
    "LimitError",
    "Manifest",
    "ManifestError",
    "Match",
    "Node",
    "NodeSettings",
    "NodeStatistics",
    "PortError",
    "PortSettings",
    "PortStatistics",
    "RuleSettings",
    "StageStatistics",
    "TemplateSettings",
    "build",
    "check_settings",
    "load_manifest",
    "make_checkpoint",
    "parse_manifest",
    "parse_match",
]

__version__ = _metadata.version("edgeos")
