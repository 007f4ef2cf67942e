"""Which ports several workers can share, on which side of them clients are, and which core each worker gets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgeos import ManifestError, parse_manifest
from edgeos.manifest import find_warnings
from edgeos.service.supervisor import cores_for
from edgeos.service.worker_settings import manifest_of_worker
from edgeos.settings import Manifest
from edgeos.sharing import number_of_workers, steered_by_destination


def manifest(kind: str = "tap", workers: object = 2, **more: Any) -> Manifest:
    ports = {name: {"kind": kind, "device": f"none-{name}"} for name in ("lan", "wan")}
    data = {
        "node": {"workers": workers},
        "port": ports,
        "template": {"wire": {"appliance": "bridge"}},
        "chain": {"edge": {"path": ["lan", "wire", "wan"]}},
        "rule": [{"match": "any", "chain": "edge"}],
        **more,
    }
    return parse_manifest(data)


def test_clients_are_behind_the_port_where_chains_begin() -> None:
    assert steered_by_destination(manifest()) == {"wan"}
    rules = [{"match": "udp", "pass": ["wan", "lan"]}]
    assert steered_by_destination(manifest(chain={}, template={}, rule=rules)) == {"lan"}


@pytest.mark.parametrize("change", ["chain", "pass"])
def test_a_port_with_clients_on_both_sides_cannot_be_shared(change: str) -> None:
    if change == "chain":
        more: dict[str, Any] = {
            "chain": {"edge": {"path": ["lan", "wire", "wan"]}, "back": {"path": ["wan", "wire", "lan"]}},
            "rule": [{"match": "udp", "chain": "back"}, {"match": "any", "chain": "edge"}],
        }
    else:
        more = {"rule": [{"match": "udp", "pass": ["wan", "lan"]}, {"match": "any", "chain": "edge"}]}
    with pytest.raises(ManifestError) as refused:
        manifest(**more)
    assert [problem.split(": ")[1] for problem in refused.value.problems] == ["port.lan", "port.wan"]
    assert "one of the two for each port, or workers = 1" in refused.value.problems[0]
    assert number_of_workers(manifest(workers="auto", **more)) == 1


def test_files_are_read_by_one_worker(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").touch()
    ports = {
        "lan": {"kind": "pcap", "read": str(tmp_path / "in.pcap")},
        "wan": {"kind": "pcap", "write": str(tmp_path / "out.pcap")},
    }
    with pytest.raises(
        ManifestError, match=r'port\.lan\.kind: found "pcap" with 2 workers; allowed: workers = 1; a capture'
    ):
        manifest(port=ports)
    assert number_of_workers(manifest(workers="auto", port=ports)) == 1


def device_manifest(kind: str, workers: object) -> Manifest:
    """As above, with a port on a device that every system has."""
    ports = {"lan": {"kind": kind, "device": "lo"}, "wan": {"kind": "tap", "device": "none-wan"}}
    return manifest(workers=workers, port=ports)


@pytest.mark.parametrize("kind", ["afxdp", "afpacket"])
def test_ports_on_a_device_are_shared(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    assert number_of_workers(device_manifest(kind, 2)) == 2
    assert number_of_workers(device_manifest(kind, "auto")) == 3


def test_a_worker_takes_the_one_queue_of_its_pair() -> None:
    shared = device_manifest("afxdp", 2)
    assert [port.queues for port in manifest_of_worker(shared, 2).ports] == [0, None]
    assert [port.queues for port in manifest_of_worker(shared, 1).ports] == [None, None]


def test_auto_is_a_worker_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 3, 5})
    assert number_of_workers(manifest(workers="auto")) == 4
    assert number_of_workers(manifest(node={"workers": "auto", "mover": "dedicated"})) == 2
    assert cores_for(3, 1) == [0, 2, 3]
    assert cores_for(4, 1) == [0, 2, 3, 5]
    assert cores_for(5, 1) == [None] * 5, "too few cores to pin anybody"
    assert cores_for(1, 1) == [None]
    assert cores_for(2, 2) == [None, None]


@pytest.mark.parametrize(("isolate", "fits"), [("client", False), ("connection", True), ("shared", True)])
def test_a_worker_is_chosen_before_a_proxy_header_is_read(isolate: str, fits: bool) -> None:
    settings = {
        "port": {"web": {"kind": "tcp", "listen": "127.0.0.1:8080", "proxy_protocol": True}},
        "chain": {"edge": {"path": ["web", "wire"], "isolate": isolate}},
    }
    if fits:
        assert number_of_workers(manifest(**settings)) == 2
        return
    with pytest.raises(ManifestError, match=r"port\.web\.proxy_protocol: .*isolate = \"connection\" in all chains"):
        manifest(**settings)
    assert number_of_workers(manifest(workers="auto", **settings)) == 1


def test_what_is_shared_differently_by_workers_is_warned_of() -> None:
    assert find_warnings(manifest()) == []
    chain = {"edge": {"path": ["lan", "wire", "wan"], "isolate": "shared"}}
    assert find_warnings(manifest(chain=chain)) == [
        'settings: chain.edge.isolate: "shared" is one FWP for each of 2 workers'
    ]
    assert find_warnings(manifest(chain=chain, workers=1)) == []
