#include "packet_parser.hpp"

#include <cstring>

namespace edgeos {
namespace {

constexpr uint32_t kEthernetHeader = 14;
constexpr uint32_t kExtensionHeadersMax = 8;

enum : uint16_t { kTypeIpv4 = 0x0800, kTypeIpv6 = 0x86dd, kTypeVlan = 0x8100, kTypeQinq = 0x88a8 };
enum : uint8_t { kHopByHop = 0, kIcmp = 1, kTcp = 6, kUdp = 17, kRouting = 43, kFragment = 44, kAuth = 51, kIcmp6 = 58,
                 kDestination = 60, kSctp = 132, kUdpLite = 136 };

uint16_t load16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return std::endian::native == std::endian::little ? __builtin_bswap16(v) : v;
}
uint32_t load32(const uint8_t* p) { return uint32_t{load16(p)} << 16 | load16(p + 2); }

struct View {
  const uint8_t* data;
  uint32_t len;
  bool has(uint32_t n) const { return len >= n; }
  View skip(uint32_t n) const { return n <= len ? View{data + n, len - n} : View{data + len, 0}; }
};

// What the network layer says; filled for the frame itself and for the packet that an ICMP error quotes.
struct Network {
  Address source{};
  Address destination{};
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint32_t fragment_id = 0;
  uint8_t version = 0;
  uint8_t protocol = 0;
  bool fragment = false;
  bool later_fragment = false;
  View transport{};
};

Address address(const uint8_t* p) {
  Address a;
  std::memcpy(&a, p, sizeof a);
  return a;
}

Address ipv4_address(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof v);
  if constexpr (std::endian::native == std::endian::little) return {0, 0xffff0000u | uint64_t{v} << 32};
  return {0, 0xffffull << 32 | v};
}

Address ethernet_address(const uint8_t* p) {
  std::array<uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), p, 6);
  return address(bytes.data());
}

bool read_ipv4(View v, Network& n) {
  if (!v.has(20) || v.data[0] >> 4 != 4) return false;
  const uint32_t header = (v.data[0] & 15u) * 4;
  if (header < 20 || !v.has(header)) return false;
  n.version = 4;
  n.source = ipv4_address(v.data + 12);
  n.destination = ipv4_address(v.data + 16);
  n.protocol = v.data[9];
  const uint16_t offset = load16(v.data + 6);
  n.fragment = (offset & 0x3fff) != 0;
  n.later_fragment = (offset & 0x1fff) != 0;
  n.fragment_id = load16(v.data + 4);
  n.transport = v.skip(header);
  return true;
}

// True and moved on when `next` is an extension header that fits.
bool skip_extension(View& v, Network& n) {
  const uint8_t type = n.protocol;
  if (!v.has(8)) return false;
  uint32_t size = (v.data[1] + 1u) * 8;
  if (type == kFragment) {
    const uint16_t offset = load16(v.data + 2);
    n.fragment = (offset & 0xfff9) != 0;
    n.later_fragment = (offset & 0xfff8) != 0;
    n.fragment_id = load32(v.data + 4);
    size = 8;
  } else if (type == kAuth) {
    size = (v.data[1] + 2u) * 4;
  } else if (type != kHopByHop && type != kRouting && type != kDestination) {
    return false;
  }
  if (!v.has(size)) return false;
  n.protocol = v.data[0];
  v = v.skip(size);
  return true;
}

bool read_ipv6(View v, Network& n) {
  if (!v.has(40) || v.data[0] >> 4 != 6) return false;
  n.version = 6;
  n.source = address(v.data + 8);
  n.destination = address(v.data + 24);
  n.protocol = v.data[6];
  v = v.skip(40);
  for (uint32_t i = 0; i < kExtensionHeadersMax && !n.later_fragment && skip_extension(v, n); i++) {
  }
  n.transport = v;
  return true;
}

bool read_network(View v, Network& n) {
  if (!v.has(1)) return false;
  return v.data[0] >> 4 == 4 ? read_ipv4(v, n) : read_ipv6(v, n);
}

bool is_icmp_error(const Network& n) {
  const uint8_t type = n.transport.data[0];
  if (n.protocol == kIcmp) return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
  return type < 128;
}

bool is_echo(const Network& n) {
  const uint8_t type = n.transport.data[0];
  return n.protocol == kIcmp ? type == 8 || type == 0 : type == 128 || type == 129;
}

// Ports, or the identifier of an echo on both sides; nothing for later fragments and for protocols without.
void read_transport(Network& n) {
  const View& v = n.transport;
  if (n.later_fragment) return;
  switch (n.protocol) {
    case kTcp: case kUdp: case kSctp: case kUdpLite:
      if (!v.has(4)) return;
      n.source_port = load16(v.data);
      n.destination_port = load16(v.data + 2);
      return;
    case kIcmp: case kIcmp6:
      if (v.has(8) && is_echo(n)) n.source_port = n.destination_port = load16(v.data + 4);
      return;
    default:
      return;
  }
}

// Any total order serves, as long as both directions get the same.
bool in_order(const Address& a, uint16_t a_port, const Address& b, uint16_t b_port) {
  if (a.second != b.second) return a.second < b.second;
  if (a.first != b.first) return a.first < b.first;
  return a_port <= b_port;
}

void make_key(const Address& source, uint16_t source_port, const Address& destination, uint16_t destination_port,
              uint8_t protocol, uint16_t ethertype, FlowKey& key) {
  const bool order = in_order(source, source_port, destination, destination_port);
  key.a = order ? source : destination;
  key.b = order ? destination : source;
  key.set_transport(order ? source_port : destination_port, order ? destination_port : source_port, protocol,
                    KeyKind::flow, ethertype);
}

void make_key(const Network& n, FlowKey& key) {
  make_key(n.source, n.source_port, n.destination, n.destination_port, n.protocol, 0, key);
}

// Later fragments have no ports: they are found by the datagram they are part of.
void make_fragment_key(const ParsedPacket& p, FlowKey& key) {
  // Of IPv6 only the first fragment knows the protocol, when extension headers stand before it (RFC 8200, 4.5).
  const uint8_t protocol = p.ip_version == 4 ? p.protocol : uint8_t{0};
  key.a = p.source;
  key.b = p.destination;
  key.set_transport(static_cast<uint16_t>(p.fragment_id >> 16), static_cast<uint16_t>(p.fragment_id), protocol,
                    KeyKind::fragment, 0);
}

void read_non_ip(View frame, uint16_t ethertype, ParsedPacket& out) {
  out.destination = ethernet_address(frame.data);
  out.source = ethernet_address(frame.data + 6);
  make_key(out.source, 0, out.destination, 0, 0, ethertype == 0 ? uint16_t{1} : ethertype, out.key);
}

// IPv4 without options or fragments, TCP or UDP, untagged.
bool is_usual(View frame) {
  if (!frame.has(kEthernetHeader + 20 + 4)) return false;
  const uint8_t* ip = frame.data + kEthernetHeader;
  return load16(frame.data + 12) == kTypeIpv4 && ip[0] == 0x45 && (load16(ip + 6) & 0x3fff) == 0 &&
         (ip[9] == kTcp || ip[9] == kUdp);
}

}  // namespace

FlowKey fragment_key(const ParsedPacket& packet) {
  FlowKey key = packet.key;
  make_fragment_key(packet, key);
  return key;
}

bool parse_key(const uint8_t* data, uint32_t len, uint16_t domain, FlowKey& key, bool& first_fragment) {
  const View frame{data, len};
  if (is_usual(frame)) {
    const uint8_t* ip = data + kEthernetHeader;
    make_key(ipv4_address(ip + 12), load16(ip + 20), ipv4_address(ip + 16), load16(ip + 22), ip[9], 0, key);
    key.set_scope(0, domain, 0);
    first_fragment = false;
    return true;
  }
  ParsedPacket parsed;
  const bool valid = parse_packet(data, len, domain, parsed);
  key = parsed.key;
  first_fragment = parsed.fragment && !parsed.later_fragment;
  return valid;
}

bool parse_packet(const uint8_t* data, uint32_t len, uint16_t domain, ParsedPacket& out) {
  const View frame{data, len};
  out = ParsedPacket{};
  if (!frame.has(kEthernetHeader)) return false;
  uint16_t ethertype = load16(data + 12);
  uint32_t vlan = 0;
  View v = frame.skip(kEthernetHeader);
  for (uint32_t shift = 0; shift < 32 && (ethertype == kTypeVlan || ethertype == kTypeQinq) && v.has(4); shift += 16) {
    vlan |= ((load16(v.data) & 0xfffu) + 1) << shift;
    ethertype = load16(v.data + 2);
    v = v.skip(4);
  }
  out.key.set_scope(vlan, domain, 0);
  Network n;
  const bool ip = (ethertype == kTypeIpv4 && read_ipv4(v, n)) || (ethertype == kTypeIpv6 && read_ipv6(v, n));
  if (!ip) {
    read_non_ip(frame, ethertype, out);
    return true;
  }
  read_transport(n);
  out.source = n.source;
  out.destination = n.destination;
  out.source_port = n.source_port;
  out.destination_port = n.destination_port;
  out.ip_version = n.version;
  out.protocol = n.protocol;
  out.fragment = n.fragment;
  out.later_fragment = n.later_fragment;
  out.fragment_id = n.fragment_id;
  const bool icmp = n.protocol == kIcmp || n.protocol == kIcmp6;
  Network quoted;
  if (n.later_fragment) {
    make_fragment_key(out, out.key);
  } else if (icmp && n.transport.has(8) && is_icmp_error(n) && read_network(n.transport.skip(8), quoted)) {
    read_transport(quoted);
    make_key(quoted, out.key);
    out.quoted = true;
  } else {
    make_key(n, out.key);
  }
  return true;
}

}  // namespace edgeos
