"""The bridge appliance: everything passes unchanged and is counted."""

from __future__ import annotations

from guest_harness import FORWARD, REVERSE, Message, Result, start_appliance
from hypothesis import given, settings
from hypothesis import strategies as st

MESSAGES = st.lists(st.builds(Message, st.binary(max_size=2048), st.sampled_from([FORWARD, REVERSE])), max_size=100)


@settings(max_examples=50, deadline=None)
@given(MESSAGES)
def test_forwards_everything_unchanged_and_counts_it(messages: list[Message]) -> None:
    bridge = start_appliance("bridge")
    assert bridge.handle(messages) == [Result(0, message.data) for message in messages]
    assert bridge.counters() == {"packets": len(messages), "bytes": sum(len(message.data) for message in messages)}
