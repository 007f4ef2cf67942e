"""Decides for unmatched.toml about clients that its rules do not match."""

import ipaddress

from edgeos import Answer, UnmatchedClient

TURNED_AWAY = ipaddress.ip_network("127.0.0.3/32")


def decide(client: UnmatchedClient) -> Answer | str:
    """An `Answer`, or the name of a chain. Asked once for each client, on a thread beside the path of messages."""
    if ipaddress.ip_address(client.address) in TURNED_AWAY:
        return Answer()
    return "guests"
