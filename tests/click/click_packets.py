"""Packets for the tests of Click elements, made and taken apart by scapy, which knows nothing of the elements."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

LAN, WAN = "02:00:00:00:00:01", "02:00:00:00:00:02"
CLIENT, SERVER = "10.0.0.2", "192.0.2.9"

__all__ = ["CLIENT", "LAN", "SERVER", "WAN", "arp", "ether", "icmp", "ip", "is_sound", "payload", "tcp", "udp"]


def ip(inner: Packet | bytes = b"", src: str = CLIENT, dst: str = SERVER, **fields: Any) -> bytes:
    """A datagram; its checksums are right unless they are given."""
    return bytes(IP(src=src, dst=dst, **fields) / (Raw(inner) if isinstance(inner, bytes) else inner))


def udp(sport: int = 5000, dport: int = 53, data: bytes = b"question", **fields: Any) -> bytes:
    """A datagram with UDP."""
    return ip(UDP(sport=sport, dport=dport) / Raw(data), **fields)


def tcp(sport: int = 5000, dport: int = 80, flags: str = "S", data: bytes = b"", **fields: Any) -> bytes:
    """A datagram with TCP."""
    return ip(TCP(sport=sport, dport=dport, flags=flags, seq=1000, ack=2000) / Raw(data), **fields)


def icmp(type: int = 8, code: int = 0, data: bytes = b"echo", id: int = 7, **fields: Any) -> bytes:
    """A datagram with ICMP."""
    return ip(ICMP(type=type, code=code, id=id, seq=1) / Raw(data), **fields)


def ether(inner: bytes = b"", src: str = LAN, dst: str = WAN, type: int = 0x0800) -> bytes:
    """An Ethernet frame, without padding."""
    return bytes(Ether(src=src, dst=dst, type=type)) + inner


def arp(
    op: int, target: str, sender: str = CLIENT, ether_src: str = LAN, ether_dst: str = "ff:ff:ff:ff:ff:ff"
) -> bytes:
    """An ARP packet in its frame."""
    return bytes(Ether(src=ether_src, dst=ether_dst) / ARP(op=op, hwsrc=ether_src, psrc=sender, pdst=target))


def payload(datagram: bytes) -> bytes:
    """What lies behind the IP header."""
    return datagram[(datagram[0] & 15) * 4 :]


def is_sound(datagram: bytes) -> bool:
    """Whether lengths and checksums are those that scapy reckons itself."""
    packet = IP(datagram)
    if packet.len != len(datagram):
        return False
    for layer in (IP, TCP, UDP, ICMP):
        if layer in packet:
            field = "chksum"
            if layer is UDP and packet[layer].chksum == 0:
                continue
            packet[layer].delfieldval(field)
    return bytes(IP(bytes(packet))) == datagram
