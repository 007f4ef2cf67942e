"""Click configurations in manifests and in the Python API: what is checked, what devices become, what is granted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from node_harness import client_packet, line

from edgeos import ChainSettings, GuestError, Manifest, ManifestError, PortSettings, TemplateSettings, check_settings
from edgeos.click.place import grants
from edgeos.code_cache import CodeCache
from edgeos.guest import load_guest
from edgeos.manifest import find_warnings, load_manifest
from edgeos.testing import reply_to

WIRE = """
define($BURST 4)
FromDevice(lan) -> forth :: Counter -> ToDevice(wan);
FromDevice(wan) -> back :: Counter -> Queue(64) -> Unqueue($BURST) -> ToDevice(lan);
"""

MANIFEST = """
[port.lan]
kind = "pcap"
read = "in.pcap"
[port.wan]
kind = "pcap"
write = "out.pcap"
[template.fw]
{template}
[chain.edge]
path = ["lan", "fw", "wan"]
[[rule]]
match = "ip"
chain = "edge"
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a manifest with this template beside a configuration, and gives the manifest's path."""

    def make(template: str = 'click = "fw.click"', click: str = WIRE) -> Path:
        (tmp_path / "in.pcap").write_bytes(b"")
        (tmp_path / "fw.click").write_text(click)
        (tmp_path / "edge.toml").write_text(MANIFEST.format(template=template))
        return tmp_path / "edge.toml"

    return make


def problems(manifest: Path) -> list[str]:
    """What is wrong with a manifest, without the folder."""
    try:
        load_manifest(manifest)
    except ManifestError as error:
        return [problem.replace(f"{manifest.parent}/", "") for problem in error.problems]
    return []


def template_of(tmp_path: Path, text: str = WIRE, **settings: object) -> TemplateSettings:
    file = tmp_path / "fw.click"
    file.write_text(text)
    return TemplateSettings(name="fw", click=file, ready_low=1, ready_high=4, **settings)  # type: ignore[arg-type]


def test_a_configuration_is_a_template(write: Write) -> None:
    manifest = load_manifest(write('click = "fw.click"\ndefine = { BURST = 8 }'))
    (template,) = manifest.templates
    assert template.click is not None
    assert template.click.name == "fw.click"
    assert template.define == {"BURST": "8"}
    assert find_warnings(manifest) == []


def test_mistakes_in_the_configuration_are_said_with_their_places(write: Write) -> None:
    (problem,) = problems(
        write(click="FromDevice(lan) -> Coutner -> ToDevice(wan);\nFromDevice(wan) -> ToDevice(2, 3);")
    )
    assert problem.splitlines()[0] == (
        'edge.toml: template.fw.click: found 1 mistake in "fw.click"; allowed: a Click configuration without any'
    ).replace('"fw.click"', problem.split("mistake in ")[1].split(";")[0])
    assert "fw.click:1:20: there is no element 'Coutner'" in problem
    assert "nearest: Counter" in problem
    assert problem.splitlines()[2:] == [
        "  FromDevice(lan) -> Coutner -> ToDevice(wan);",
        "                     ^~~~~~~",
    ]


@pytest.mark.parametrize(
    ("template", "finding"),
    [
        ('click = "fw.clck"', 'template.fw.click: found "fw.clck", which does not exist'),
        ('click = "fw.click"\nsource = "fw.click"', "template.fw.source or click: found source and click"),
        ('click = "fw.click"\nconfig = "x"', "template.fw.config: found config beside click"),
        ('click = "fw.click"\ndefine = 1', "template.fw.define: found 1; allowed: a table of variables"),
        ('click = "fw.click"\ndefine = { "a b" = "1" }', 'template.fw.define: found the name "a b"'),
        (
            'click = "fw.click"\ndefine = { BURST = 1.5 }',
            "template.fw.define: found BURST = 1.5; allowed: text or whole",
        ),
        ('click = "fw.click"\ndefine = { BURST = "many" }', "template.fw.click: found 1 mistake"),
        ('click = "fw.click"\ndevices = ["lan", "lan"]', "template.fw.devices: found a name twice"),
        (
            'appliance = "bridge"\ndefine = { A = "1" }',
            'template.fw.define: found "A"; allowed: no define without click',
        ),
        (
            'appliance = "bridge"\ndevices = ["lan"]',
            'template.fw.devices: found "lan"; allowed: no devices without click',
        ),
    ],
)
def test_one_mistake_in_a_template_is_one_finding(write: Write, template: str, finding: str) -> None:
    found = problems(write(template))
    assert len(found) == 1
    assert found[0].startswith(f"edge.toml: {finding}"), found


@pytest.mark.parametrize(
    ("click", "finding"),
    [
        (
            "FromDevice(wan) -> ToDevice(lan);",
            'found device "wan" of fw as number 0, where "lan" stands; allowed: number 1; add devices = ["lan", "wan"]',
        ),
        (
            "FromDevice(lan) -> ToDevice(2);",
            'found device "2", number 2, of fw with 1 out port; allowed: devices 0 to 1',
        ),
        ("FromRing(0) -> ToRing(1);", "found ToRing(1) in fw; allowed: ToRing(0) to ToRing(0)"),
        ("FromRing(2) -> ToRing(0);", "found FromRing(2) in fw; allowed: FromRing(0) to FromRing(1)"),
    ],
)
def test_devices_must_be_where_they_are_called(write: Write, click: str, finding: str) -> None:
    found = problems(write(click=click))
    assert found
    assert all(problem.startswith("edge.toml: chain.edge.path: ") for problem in found)
    assert finding in found[0]


def test_the_order_of_devices_can_be_said(write: Write) -> None:
    assert problems(write('click = "fw.click"\ndevices = ["lan", "wan"]', "FromDevice(wan) -> ToDevice(lan);")) == []


def test_a_stage_with_several_links_in_has_no_devices(tmp_path: Path) -> None:
    ports = tuple(PortSettings(name=name, kind="memory") for name in ("a", "b", "c"))
    chain = ChainSettings(name="edge", links=("a -> fw", "b -> fw", "fw -> c"))
    with_devices = Manifest(ports=ports, templates=(template_of(tmp_path),), chains=(chain,))
    with pytest.raises(ManifestError, match="found 2 links into fw, whose configuration has devices"):
        check_settings(with_devices)
    rings = template_of(tmp_path, "FromRing(0) -> ToRing(0); FromRing(1) -> ToRing(0); FromRing(2) -> ToRing(1);")
    check_settings(replace(with_devices, templates=(rings,)))


def test_variables_that_the_configuration_does_not_have_are_warned_of(write: Write) -> None:
    manifest = load_manifest(write('click = "fw.click"\ndefine = { BURST = 8, BRUST = 9 }'))
    assert [text.partition(": ")[2] for text in find_warnings(manifest)] == [
        "template.fw.define: the configuration has no $BRUST"
    ]


def test_packets_pass_both_ways_through_a_configuration(tmp_path: Path) -> None:
    with line(template_of(tmp_path)) as rig:
        packets = [client_packet(1, bytes([n])) for n in range(10)]
        assert rig.pass_through("lan", *packets) == packets
        replies = [reply_to(packet) for packet in packets]
        assert rig.pass_through("wan", *replies) == replies
        (forth,) = rig.node.read_handler("edge", "fw", "10.0.0.1", "forth.count")
        (back,) = rig.node.read_handler("edge", "fw", "10.0.0.1", "back.count")
        assert (forth.text, back.text) == ("10", "10")


def test_timers_are_granted_where_elements_need_them(tmp_path: Path) -> None:
    template = template_of(tmp_path)
    assert grants(template) == template.grant
    from edgeos.click.registry import element_classes  # noqa: PLC0415

    if "RatedSource" in element_classes():
        assert grants(template_of(tmp_path, "RatedSource(RATE 10) -> ToDevice(wan);")).timer


def test_the_compiled_guest_is_kept_by_content(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path / "cache")
    first = load_guest(template_of(tmp_path), cache)
    kept = cache.misses
    (tmp_path / "other").mkdir()
    assert load_guest(template_of(tmp_path / "other"), cache) == first, "where the file lies does not matter"
    assert cache.misses == kept
    assert load_guest(template_of(tmp_path, WIRE.replace("4", "5")), cache) != first
    assert cache.misses > kept
    with pytest.raises(ManifestError, match=r"fw\.click:1:1"):
        check_settings(Manifest(templates=(template_of(tmp_path, "->"),)))


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    template = template_of(tmp_path)
    (tmp_path / "fw.click").write_bytes(b"FromDevice(\xff)")
    with pytest.raises(ManifestError, match="found byte 0xff at offset 11; allowed: UTF-8 text"):
        check_settings(Manifest(templates=(template,)))
    (tmp_path / "fw.click").unlink()
    with pytest.raises(GuestError, match="cannot be read"):
        load_guest(template, CodeCache(tmp_path / "cache"))
