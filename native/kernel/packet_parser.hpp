// Finds out who an Ethernet frame belongs to: its flow, both directions alike, over IPv4 and IPv6, through VLAN tags, IP
// options and extension headers; ICMP errors speak of the flow that they quote. Reads only inside the frame.
//
// Sources: RFC 791, 8200, 792, 4443; IEEE 802.1Q. Stateless, any thread.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace edgeos {

// An address as it lies in the frame. IPv4 is kept as ::ffff:a.b.c.d, an Ethernet address in the first six bytes.
struct Address {
  uint64_t first;
  uint64_t second;
  bool operator==(const Address&) const = default;
  std::array<uint8_t, 16> bytes() const { return std::bit_cast<std::array<uint8_t, 16>>(*this); }
};

enum class KeyKind : uint8_t { flow = 1, fragment = 2, owner = 3 };

// What the flow table is keyed by: six words, each written whole, since the hash reads them right after. For flows the
// smaller end comes first, so that both directions have one key.
struct FlowKey {
  Address a;
  Address b;
  uint64_t transport;  // a's port | b's port << 16 | protocol << 32 | kind << 40 | ethertype of non-IP << 48
  uint64_t scope;      // VLAN | domain << 32 | chain of an owner << 48
  bool operator==(const FlowKey&) const = default;

  void set_transport(uint16_t a_port, uint16_t b_port, uint8_t protocol, KeyKind kind, uint16_t ethertype) {
    transport = a_port | uint64_t{b_port} << 16 | uint64_t{protocol} << 32 | uint64_t(kind) << 40 | uint64_t{ethertype} << 48;
  }
  // VLAN: outer tag | inner tag << 16, each as id + 1; 0 = untagged. Ports that no chain joins are different domains and
  // have flows of their own.
  void set_scope(uint32_t vlan, uint16_t domain, uint16_t chain) {
    scope = vlan | uint64_t{domain} << 32 | uint64_t{chain} << 48;
  }
  uint32_t vlan() const { return static_cast<uint32_t>(scope); }
  uint16_t domain() const { return static_cast<uint16_t>(scope >> 32); }
  uint16_t ethertype() const { return static_cast<uint16_t>(transport >> 48); }
  KeyKind kind() const { return static_cast<KeyKind>(transport >> 40 & 0xff); }
};
static_assert(sizeof(FlowKey) == 48);

struct ParsedPacket {
  FlowKey key{};  // of the flow; of the quoted flow for an ICMP error; of the datagram for a later fragment
  Address source{};  // of this frame
  Address destination{};
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint32_t fragment_id = 0;
  uint8_t ip_version = 0;  // 0: not IP
  uint8_t protocol = 0;    // of this frame
  bool fragment = false;        // part of a datagram
  bool later_fragment = false;  // and not its first part: it has no ports
  bool quoted = false;          // an ICMP error, and the key is of the flow it quotes
};

// Everything that rules and owners are chosen by. False when the frame is shorter than an Ethernet header.
bool parse_packet(const uint8_t* data, uint32_t len, uint16_t domain, ParsedPacket& out);

// The key alone, as parse_packet finds it; `first_fragment` when later fragments will follow. The usual packets (IPv4 without
// options, TCP or UDP, untagged) take a short cut.
bool parse_key(const uint8_t* data, uint32_t len, uint16_t domain, FlowKey& key, bool& first_fragment);

// The key by which the later fragments of this packet's datagram will be found.
FlowKey fragment_key(const ParsedPacket& packet);

}  // namespace edgeos
