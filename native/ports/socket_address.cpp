#include "socket_address.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <bit>
#include <cstddef>
#include <cstring>
#include <stdexcept>

namespace edgeos {
namespace {

constexpr size_t kMappedPrefix = 12;  // ::ffff: in front of an IPv4 address

template <class T>
SocketAddress pack(const T& address) {
  SocketAddress packed;
  std::memcpy(&packed.storage, &address, sizeof address);
  packed.length = sizeof address;
  return packed;
}

SocketAddress path_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    throw std::runtime_error(path + ": the path of a socket has 1 to 107 bytes");
  path.copy(address.sun_path, path.size());
  return pack(address);
}

}  // namespace

Endpoint endpoint_from(const sockaddr_storage& storage) {
  std::array<uint8_t, 16> bytes{};
  Endpoint e;
  if (storage.ss_family == AF_INET) {
    sockaddr_in four;
    std::memcpy(&four, &storage, sizeof four);
    bytes[10] = bytes[11] = 0xff;
    std::memcpy(&bytes[kMappedPrefix], &four.sin_addr, 4);
    e.port = ntohs(four.sin_port);
    e.family = 4;
  } else if (storage.ss_family == AF_INET6) {
    sockaddr_in6 six;
    std::memcpy(&six, &storage, sizeof six);
    std::memcpy(bytes.data(), &six.sin6_addr, bytes.size());
    e.port = ntohs(six.sin6_port);
    e.family = IN6_IS_ADDR_V4MAPPED(&six.sin6_addr) ? 4 : 6;
  }
  e.address = std::bit_cast<Address>(bytes);
  return e;
}

SocketAddress socket_address(const std::string& text, uint16_t port, bool path) {
  if (path) return path_address(text);
  sockaddr_in four{};
  sockaddr_in6 six{};
  if (inet_pton(AF_INET, text.c_str(), &four.sin_addr) == 1) {
    four.sin_family = AF_INET;
    four.sin_port = htons(port);
    return pack(four);
  }
  if (inet_pton(AF_INET6, text.c_str(), &six.sin6_addr) != 1) throw std::runtime_error(text + ": not an IP address");
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(port);
  return pack(six);
}

SocketAddress socket_address(const Endpoint& e, int family) {
  const std::array<uint8_t, 16> bytes = e.address.bytes();
  if (family == AF_INET) {
    sockaddr_in four{};
    four.sin_family = AF_INET;
    four.sin_port = htons(e.port);
    std::memcpy(&four.sin_addr, &bytes[kMappedPrefix], 4);
    return pack(four);
  }
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(e.port);
  std::memcpy(&six.sin6_addr, bytes.data(), bytes.size());
  return pack(six);
}

}  // namespace edgeos
