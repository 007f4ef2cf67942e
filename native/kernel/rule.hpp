// Rules decide, once per flow, which chain a new client gets. The first that matches wins. They see flows from the client's
// side: source is the client's end, whichever way the first packet went.
//
// Owner: the rule table, which keeps their order. Compiled from text in Python (edgeos.match).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "packet_parser.hpp"

namespace edgeos {

struct Prefix {
  std::array<uint8_t, 16> address{};
  uint8_t bits = 0;  // of 128
  bool contains(const Address& a) const;
};

struct PortRange {
  uint16_t low;
  uint16_t high;
  bool contains(uint16_t p) const { return low <= p && p <= high; }
};

enum class Isolation : uint8_t { shared, client, flow };

struct Rule {
  static constexpr int32_t kDropAction = -1;
  static constexpr int32_t kNewChain = -1000;  // kNewChain - i: the i-th chain that the same change adds

  uint64_t id = 0;       // given by the control plane, never twice
  int32_t priority = 0;  // the higher is asked first
  uint64_t order = 0;    // and among equals the lower

  std::optional<bool> ip;
  uint8_t ip_version = 0;  // 4, 6, or 0 for either
  std::optional<uint16_t> ethertype;
  std::optional<uint8_t> protocol;
  std::optional<Prefix> source;
  std::optional<Prefix> destination;
  std::optional<PortRange> source_ports;
  std::optional<PortRange> destination_ports;
  std::optional<PortRange> any_port;
  std::optional<uint16_t> vlan;
  std::optional<uint16_t> port;  // of entry
  std::string server_name;       // of TLS, in lower case; "*.example.com": what is below; empty: any
  int32_t action = kDropAction;  // number of a chain, or kDropAction
  Isolation isolation = Isolation::client;
  uint32_t max_clients = 0;  // that it lets in at once; 0 is any number
  uint32_t new_clients = 0;  // a second; 0 is any number
  std::string tenant;        // empty: none
};

// A flow as its client sees it.
struct FlowView {
  const ParsedPacket& packet;
  bool reverse;  // the packet travels towards the client
  uint16_t port;
  std::string_view server_name{};  // that a connection's first bytes name; empty: none
  const Address& client() const { return reverse ? packet.destination : packet.source; }
  const Address& peer() const { return reverse ? packet.source : packet.destination; }
  uint16_t client_port() const { return reverse ? packet.destination_port : packet.source_port; }
  uint16_t peer_port() const { return reverse ? packet.source_port : packet.destination_port; }
};

bool matches(const Rule& rule, const FlowView& flow);

}  // namespace edgeos
