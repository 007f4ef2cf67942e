"""The page of elements and what the element table must keep to."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeos.click.element import Element
from edgeos.click.reference import page
from edgeos.click.registry import element_classes
from edgeos.share import share

LISTED = """
    FromDevice ToDevice FromRing ToRing Discard Idle InfiniteSource RatedSource TimedSource Classifier
    IPClassifier IPFilter Switch PaintSwitch HashSwitch RoundRobinSwitch RandomSwitch Paint CheckPaint Tee
    EtherEncap EtherMirror EtherVLANEncap VLANDecap HostEtherFilter ARPResponder ARPQuerier Strip Unstrip
    StripToNetworkHeader CheckIPHeader CheckIPHeader2 MarkIPHeader DecIPTTL GetIPAddress SetIPAddress SetIPDSCP
    IPMirror IPFragmenter IPGWOptions FixIPSrc DropBroadcasts IPInputCombo IPOutputCombo StaticIPLookup
    LinearIPLookup RadixIPLookup ICMPError ICMPPingResponder IPEncap UDPIPEncap SetIPChecksum SetUDPChecksum
    SetTCPChecksum CheckUDPHeader CheckTCPHeader CheckICMPHeader IPRewriter UDPRewriter TCPRewriter
    ICMPPingRewriter ICMPRewriter IPAddrRewriter RoundRobinIPMapper SourceIPHashMapper Queue SimpleQueue
    FrontDropQueue Unqueue RatedUnqueue Shaper BandwidthShaper BandwidthRatedUnqueue Meter BandwidthMeter
    Counter AverageCounter IPRateMonitor Search Align StoreData Truncate Print IPPrint
"""


def test_the_page_is_up_to_date() -> None:
    shown = Path(__file__).parents[2].joinpath("docs", "click-elements.md").read_text()
    assert shown == page(element_classes().values()), "python -m edgeos.click.reference > docs/click-elements.md"


def test_all_elements_are_there_that_were_promised() -> None:
    assert set(LISTED.split()) <= set(element_classes())


@pytest.mark.parametrize("of", element_classes().values(), ids=lambda of: of.__name__)
def test_a_class_says_what_it_does_and_has_its_template(of: type[Element]) -> None:
    assert len(of.summary()) > 20
    template = share("guest", "include", "click", "elements") / of.template_name()
    assert template.is_file()
    assert of.__name__ in template.read_text().partition("*/")[0], "a template's head names its elements"
    names = [parameter.name for parameter in of.parameters]
    assert len(names) == len(set(names))


def test_each_template_belongs_to_a_class() -> None:
    used = {of.template_name() for of in element_classes().values()}
    assert {path.name for path in share("guest", "include", "click", "elements").iterdir()} == used


def test_each_class_has_a_test_that_runs_it() -> None:
    texts = [
        path.read_text() for path in Path(__file__).parent.glob("test_click_*.py") if path.name != Path(__file__).name
    ]
    assert [name for name in element_classes() if not any(name in text for text in texts)] == []
