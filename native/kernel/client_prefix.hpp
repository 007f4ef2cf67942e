// Whom a limit for each client counts. A host with IPv6 has a network of addresses to choose from, so limits count its prefix:
// else they would hold for nobody. Isolation goes by whole addresses nevertheless.
//
// Stateless, any thread.
#pragma once

#include <algorithm>
#include <bit>

#include "packet_parser.hpp"

namespace edgeos {

inline constexpr uint8_t kClientPrefixV6 = 64;  // bits; what a host or a site gets

inline bool is_ipv4(const Address& address) {
  const auto bytes = address.bytes();
  return address.first == 0 && bytes[8] == 0 && bytes[9] == 0 && bytes[10] == 0xff && bytes[11] == 0xff;
}

// The first `bits` of an IPv6 address; an IPv4 address, which a host does not choose, as it is.
inline Address client_prefix(const Address& address, uint8_t bits = kClientPrefixV6) {
  if (bits >= 128 || is_ipv4(address)) return address;
  auto bytes = address.bytes();
  auto beyond = bytes.begin() + bits / 8;
  if (bits % 8 != 0) *beyond++ &= static_cast<uint8_t>(0xff00u >> bits % 8);
  std::fill(beyond, bytes.end(), uint8_t{0});
  return std::bit_cast<Address>(bytes);
}

}  // namespace edgeos
