// Later fragments that have overtaken their first one, which alone knows the flow: copies of them wait for it, a second each.
// All clients share the room. When it is full, whoever has most of it gives up the oldest of theirs, so that one sender cannot
// take it from the others. Senders are told apart as limits tell clients apart.
//
// Owner: the dispatcher; not thread-safe. Who takes or drops a fragment counts it.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "../ports/port.hpp"
#include "flow_index.hpp"
#include "packet_parser.hpp"

namespace edgeos {

class HeldFragments {
 public:
  struct Held {
    FlowKey key;  // of its datagram
    std::vector<uint8_t> bytes;
    uint64_t time_ns;
    uint64_t until_ns;
    uint32_t* of_sender;  // fragments of its sender that wait
    uint16_t port;
  };

  // Keeps a copy. True when another one had to give way, which is lost.
  bool hold(uint16_t port, const Packet& packet, const FlowKey& key, uint64_t now_ns);
  // Those of a datagram, in the order in which they came.
  std::vector<Held> take(const FlowKey& key);
  // Forgets those that have waited too long; how many they were.
  uint32_t expire(uint64_t now_ns);
  uint64_t next_expiry_ns() const { return held_.empty() ? UINT64_MAX : held_.front().until_ns; }
  uint32_t size() const { return static_cast<uint32_t>(held_.size()); }
  void clear();

 private:
  void forget(const Held& held);
  void make_room();

  std::vector<Held> held_;  // the oldest first
  std::unordered_map<Address, uint32_t, EndpointHash> senders_;
};

}  // namespace edgeos
