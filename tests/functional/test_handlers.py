"""Named values of guests, read and written while messages pass."""

from __future__ import annotations

import pytest
from node_harness import Rig, client_packet, guest, line

from edgeos import EdgeosError, HandlerAnswer, NodeSettings
from edgeos.handlers import total

MOVERS = ["inline", "dedicated"]


def read(rig: Rig, name: str, client: str | None = "10.0.0.1") -> str:
    (answer,) = rig.node.read_handler("edge", "handles", client, name)
    assert not answer.problem, answer
    return answer.text


def write(rig: Rig, name: str, value: bytes | str, client: str | None = "10.0.0.1") -> HandlerAnswer:
    (answer,) = rig.node.write_handler("edge", "handles", client, name, value)
    return answer


@pytest.mark.parametrize("mover", MOVERS)
def test_a_value_is_read_and_written_in_one_clients_fwp(mover: str) -> None:
    with line(guest("handles"), settings=NodeSettings(mover=mover)) as rig:  # type: ignore[arg-type]
        rig.pass_through("lan", client_packet(1), client_packet(1), client_packet(2))
        assert (read(rig, "limit"), read(rig, "limit", "10.0.0.2")) == ("998", "999")
        assert write(rig, "limit", "1") == HandlerAnswer(client="10.0.0.1")
        assert len(rig.pass_through("lan", client_packet(1), client_packet(1), client_packet(2))) == 2
        assert (read(rig, "limit"), read(rig, "limit", "10.0.0.2")) == ("0", "998")
        assert total(rig.node.read_handler("edge", "handles", None, "limit")) == 998


def test_counters_are_read_without_asking_the_guest() -> None:
    with line(guest("handles")) as rig:
        rig.pass_through("lan", client_packet(1), client_packet(1), client_packet(2))
        answers = rig.node.read_handler("edge", "handles", None, "seen")
        assert {answer.client: answer.value for answer in answers} == {"10.0.0.1": b"2", "10.0.0.2": b"1"}
        assert read(rig, "seen", "10.0.0.2") == "1"
        assert write(rig, "reset", b"") == HandlerAnswer(client="10.0.0.1")
        assert (read(rig, "seen"), read(rig, "handled")) == ("0", "0")


def test_what_a_guest_refuses_is_said() -> None:
    with line(guest("handles")) as rig:
        rig.pass_through("lan", client_packet(1))
        assert write(rig, "limit", "many").problem == "only digits"
        assert "only be read" in write(rig, "handled", "1").problem
        with pytest.raises(EdgeosError, match='no handler "limits"'):
            read(rig, "limits")
        with pytest.raises(EdgeosError, match="an IP or Ethernet address"):
            read(rig, "limit", "somebody")
        for chain, stage in (("nowhere", "handles"), ("edge", "nobody")):
            with pytest.raises(KeyError):
                rig.node.read_handler(chain, stage, None, "limit")
        assert rig.node.read_handler("edge", "handles", "10.0.0.9", "limit") == ()


def test_a_guest_without_handlers() -> None:
    with line(guest("tally")) as rig:
        rig.pass_through("lan", client_packet(1))
        with pytest.raises(EdgeosError, match="no handler"):
            rig.node.read_handler("edge", "tally", None, "x")


@pytest.mark.parametrize("mover", MOVERS)
def test_values_use_the_slots_that_hold_no_message(mover: str) -> None:
    with line(guest("handles", slots=8, slot_size=256), settings=NodeSettings(mover=mover)) as rig:  # type: ignore[arg-type]
        rig.pass_through("lan", client_packet(1))
        room = int(read(rig, "capacity"))
        assert room == 8 * 320 - 16
        value = bytes(range(256)) * 9
        assert write(rig, "echo", value).value == value[::-1]
        assert "no room" in write(rig, "echo", bytes(room + 1)).problem
        frames = [client_packet(1, bytes([n])) for n in range(4)]
        assert rig.pass_through("lan", *frames) == frames


@pytest.mark.parametrize("mover", MOVERS)
@pytest.mark.parametrize(("name", "cause"), [("trap", "trap"), ("loop", "budget")])
def test_a_handler_that_misbehaves_ends_its_fwp_alone(mover: str, name: str, cause: str) -> None:
    with line(guest("handles", budget_ns=2_000_000), settings=NodeSettings(mover=mover)) as rig:  # type: ignore[arg-type]
        rig.pass_through("lan", client_packet(1), client_packet(2))
        (answer,) = rig.node.read_handler("edge", "handles", "10.0.0.1", name)
        assert answer.problem == f"the call ended its FWP: {cause}"
        assert rig.check().chain("edge").kills == {cause: 1}
        assert read(rig, "limit", "10.0.0.2") == "999"
        assert rig.pass_through("lan", client_packet(1)) == [client_packet(1)]
        assert read(rig, "limit") == "999", "it has a fresh FWP"


def test_a_handlers_answers_are_believed_in_nothing() -> None:
    with line(guest("handles", slots=8, slot_size=256)) as rig:
        rig.pass_through("lan", client_packet(1))
        (lie,) = rig.node.read_handler("edge", "handles", "10.0.0.1", "lie")
        assert len(lie.value) <= 8 * 320
        (lie,) = rig.node.read_handler("edge", "handles", "10.0.0.1", "lie much")
        assert lie.problem
        assert read(rig, "emit") == "1", "a handler has no message to emit before"
        assert rig.take("wan") == []


def test_handlers_of_a_running_node_and_of_many_clients() -> None:
    with line(guest("handles"), max_fwps=256) as rig:
        rig.inject("lan", *(client_packet(n) for n in range(200)))
        rig.node.start()
        while rig.node.statistics(guest_counters=False).chain("edge").sent < 200:
            rig.node.wait(0.01)
        assert total(rig.node.read_handler("edge", "handles", None, "limit")) == 200 * 999
        assert not any(answer.problem for answer in rig.node.write_handler("edge", "handles", None, "limit", "5"))
        assert total(rig.node.read_handler("edge", "handles", None, "limit")) == 1000
        statistics = rig.node.stop()
        assert statistics.balance == 0
