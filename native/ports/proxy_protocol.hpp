// The header that a load balancer puts in front of a connection to name its client: PROXY protocol, versions 1 and 2.
// Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
//
// Owner: none, a pure function; any thread. Bytes come from whoever connected, so nothing is believed; a header is bounded,
// and a prefix that can no longer become one is refused at once.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace edgeos {

inline constexpr uint32_t kProxyLineMax = 107;    // bytes of a version 1 header, CRLF included
inline constexpr uint32_t kProxyHeaderMax = 536;  // bytes of a version 2 header that are accepted, TLVs included

struct ProxyHeader {
  enum class Status : uint8_t { need_more, complete, malformed };
  Status status = Status::need_more;
  uint32_t len = 0;        // complete: bytes of the header; the connection's own follow
  uint8_t ip_version = 0;  // complete: 4 or 6; 0 when it names no client (LOCAL, UNSPEC, UNKNOWN, a Unix socket)
  std::array<uint8_t, 16> source{};  // IPv4 as ::ffff:a.b.c.d
  std::array<uint8_t, 16> destination{};
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
};

// Reads the header at the start of what has come so far.
ProxyHeader parse_proxy_header(std::span<const uint8_t> bytes);

}  // namespace edgeos
