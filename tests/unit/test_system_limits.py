"""What a node needs of the system, against systems that have too little of something; each finding names its fix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeos import ChainSettings, LimitError, Manifest, NodeSettings, TemplateSettings, system_limits
from edgeos.system_limits import System, find_shortages, fwps_of, is_compact, require_system, this_system

GIB = 2**30
ROOMY = System(mappings=65530, memory=24 * GIB, locked=None)


def node_of(fwps: int, memory: str = "auto", **node: int) -> Manifest:
    return Manifest(
        node=NodeSettings(memory=memory, **node),  # type: ignore[arg-type]
        templates=(TemplateSettings(name="fw", appliance="bridge", ready_high=64),),
        chains=(ChainSettings(name="edge", path=("lan", "fw", "wan"), max_fwps=fwps),),
    )


def test_15000_fwps_need_no_change_of_a_usual_system() -> None:
    assert list(find_shortages(node_of(15_000), ROOMY)) == []


def test_fwps_of_pools_and_spare_ones_count() -> None:
    assert fwps_of(node_of(100, spare_fwps=10)) == 175
    assert [is_compact(node_of(fwps)) for fwps in (191, 192)] == [False, True]


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (
            node_of(40_000),
            "40065 FWPs need up to 84226 memory mappings, this system allows 65530; lower max_fwps, or as root: "
            "sysctl -w vm.max_map_count=84226",
        ),
        (
            node_of(20_000, "guard"),
            "20065 FWPs need up to 84356 memory mappings, this system allows 65530; lower max_fwps, "
            'set node.memory = "compact", or as root: sysctl -w vm.max_map_count=84356',
        ),
    ],
)
def test_too_few_mappings(manifest: Manifest, says: str) -> None:
    assert list(find_shortages(manifest, ROOMY)) == [says]
    enough = replace(ROOMY, mappings=int(says.rpartition("=")[2]))
    assert list(find_shortages(manifest, enough)) == [], "the fix is enough"


def test_too_little_memory() -> None:
    (says,) = find_shortages(node_of(15_000), replace(ROOMY, memory=GIB // 8))
    assert says.startswith("15065 FWPs and 65536 flows take at least 243MiB of memory, there is 128MiB; lower max_fwps")
    assert list(find_shortages(node_of(15_000), replace(ROOMY, memory=GIB // 4))) == []


def test_too_little_locked_memory() -> None:
    (says,) = find_shortages(node_of(10), replace(ROOMY, locked=65536), locked_bytes=6 << 20)
    assert "lock 6MiB of memory, this process may lock 64KiB" in says
    assert "ulimit -Hl 6144" in says
    assert "LimitMEMLOCK=infinity" in says


def test_everything_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_limits, "this_system", lambda: System(mappings=5000, memory=GIB // 8, locked=0))
    with pytest.raises(LimitError) as caught:
        require_system(node_of(15_000), locked_bytes=4096)
    assert len(str(caught.value).splitlines()) == 3


def test_this_system_is_read() -> None:
    system = this_system()
    assert system.mappings > 0
    assert 2**26 < system.memory < 2**60


def test_the_tightest_control_group_counts(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/system.slice/edgeos.service\n")
    service = tmp_path / "fs" / "system.slice" / "edgeos.service"
    service.mkdir(parents=True)
    (service / "memory.max").write_text("max\n")
    (service.parent / "memory.max").write_text("1073741824\n")
    assert min(system_limits._group_limits(membership, tmp_path / "fs")) == GIB
    assert min(system_limits._group_limits(tmp_path / "none", tmp_path / "fs")) > 2**60
