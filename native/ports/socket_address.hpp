// Ends of connections: an IP address and port as the kernel keeps them, and as sockets take them.
//
// Stateless, any thread.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "../kernel/packet_parser.hpp"

namespace edgeos {

struct Endpoint {
  Address address{};    // IPv4 as ::ffff:a.b.c.d
  uint16_t port = 0;    // host byte order
  uint8_t family = 0;   // 4, 6, or 0: a Unix socket, which has no address
  bool operator==(const Endpoint&) const = default;
};

// IPv4 inside IPv6 is taken for what it is.
Endpoint endpoint_from(const sockaddr_storage& address);

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// From an IP address in text and a port, or from the path of a Unix socket when `path`. Throws std::runtime_error.
SocketAddress socket_address(const std::string& text, uint16_t port, bool path);

// Of an endpoint for a socket of this family: AF_INET, or AF_INET6 for both.
SocketAddress socket_address(const Endpoint& endpoint, int family);

}  // namespace edgeos
