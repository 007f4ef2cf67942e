"""Packets that edgeos.testing makes."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from edgeos.testing import tcp_packet, udp_packet

IP_BYTES, ETHERNET_BYTES = 20, 14


@pytest.mark.parametrize(("make", "checksum_at", "zero"), [(tcp_packet, 16, 0), (udp_packet, 6, 0xFFFF)])
def test_a_checksum_of_zero_is_written_so_for_tcp_and_as_its_twin_for_udp(
    make: Callable[..., bytes], checksum_at: int, zero: int
):
    def checksum(word: int) -> int:
        frame = make("10.0.0.1", "10.0.0.2", struct.pack("!H", word))
        return int.from_bytes(frame[ETHERNET_BYTES + IP_BYTES + checksum_at :][:2], "big")

    # A word more in the data is so much less in the checksum.
    assert checksum(checksum(0)) == zero
