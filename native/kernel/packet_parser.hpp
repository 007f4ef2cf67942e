// Finds out who an Ethernet frame belongs to: its flow, both directions alike, over IPv4 and IPv6, through VLAN tags, IP
// options and extension headers; ICMP errors speak of the flow that they quote. Reads only inside the frame.
//
// Sources: RFC 791, 8200, 792, 4443; IEEE 802.1Q. Stateless, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace edgeos {

// IPv4 addresses are kept as ::ffff:a.b.c.d; Ethernet addresses in the first six bytes.
using Address = std::array<uint8_t, 16>;

enum class KeyKind : uint8_t { flow = 1, fragment = 2, owner = 3 };

// What the flow table is keyed by. For flows the smaller end comes first, so that both directions have one key.
struct alignas(8) FlowKey {
  Address a{};
  Address b{};
  uint16_t a_port = 0;  // for fragments, a_port and b_port hold the identification
  uint16_t b_port = 0;
  uint8_t protocol = 0;
  KeyKind kind = KeyKind::flow;
  uint16_t ethertype = 0;  // of non-IP frames; 0 for IP
  uint32_t vlan = 0;       // outer tag | inner tag << 16, each as id + 1; 0 = untagged
  uint16_t domain = 0;     // ports that no chain joins have flows of their own
  uint16_t chain = 0;      // for owners
  bool operator==(const FlowKey& o) const { return std::memcmp(this, &o, sizeof *this) == 0; }
};
static_assert(sizeof(FlowKey) == 48);

struct ParsedPacket {
  FlowKey key;  // of the flow; of the quoted flow for an ICMP error; of the datagram for a later fragment
  Address source;        // of this frame
  Address destination;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint32_t fragment_id = 0;
  uint8_t ip_version = 0;  // 0: not IP
  uint8_t protocol = 0;    // of this frame
  bool fragment = false;        // part of a datagram
  bool later_fragment = false;  // and not its first part: it has no ports
};

// False when the frame is shorter than an Ethernet header.
bool parse_packet(const uint8_t* data, uint32_t len, uint16_t domain, ParsedPacket& out);

// The key by which the later fragments of this packet's datagram will be found.
FlowKey fragment_key(const ParsedPacket& packet);

}  // namespace edgeos
