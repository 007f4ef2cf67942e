// What the parts of Streams share: how events name what they are for, and a connection's ends as guests see them.
//
// Private to native/kernel/stream*.cpp.
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstring>

#include "streams.hpp"

namespace edgeos {

// An event carries the address of a connection, or of a service with the lowest bit set.
inline uint64_t service_tag(Service* service) { return reinterpret_cast<uintptr_t>(service) | 1; }
inline uint64_t connection_tag(Connection* c) { return reinterpret_cast<uintptr_t>(c); }
inline Service* service_of(uint64_t tag) { return tag & 1 ? reinterpret_cast<Service*>(tag & ~uint64_t{1}) : nullptr; }
inline Connection* connection_of(uint64_t tag) { return reinterpret_cast<Connection*>(tag); }

// Mirrors edgeos_endpoints in guest/include/edgeos.h; a test compares the two.
struct GuestEndpoints {
  uint8_t family;
  uint8_t transport;
  uint16_t peer_port;
  uint16_t local_port;
  uint16_t upstream;
  std::array<uint8_t, 16> peer;
  std::array<uint8_t, 16> local;
};
static_assert(sizeof(GuestEndpoints) == 40);
static_assert(alignof(Service) > 1 && alignof(Connection) > 1, "the lowest bit is free");

inline GuestEndpoints guest_endpoints(const Connection& c) {
  const uint8_t transport = c.is_udp ? IPPROTO_UDP : c.peer.family == 0 && c.local.family == 0 ? 0 : IPPROTO_TCP;
  return {c.local.family, transport, c.peer.port, c.local.port, c.upstream, c.peer.address.bytes(), c.local.address.bytes()};
}

}  // namespace edgeos
