#include "packet_parser.hpp"

namespace edgeos {
namespace {

constexpr uint32_t kEthernetHeader = 14;
constexpr uint32_t kExtensionHeadersMax = 8;

enum : uint16_t { kTypeIpv4 = 0x0800, kTypeIpv6 = 0x86dd, kTypeVlan = 0x8100, kTypeQinq = 0x88a8 };
enum : uint8_t { kHopByHop = 0, kIcmp = 1, kTcp = 6, kUdp = 17, kRouting = 43, kFragment = 44, kAuth = 51, kIcmp6 = 58,
                 kDestination = 60, kSctp = 132, kUdpLite = 136 };

uint16_t load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }
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

Address ipv4_address(const uint8_t* p) {
  Address a{};
  a[10] = a[11] = 0xff;
  std::memcpy(&a[12], p, 4);
  return a;
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
  std::memcpy(n.source.data(), v.data + 8, 16);
  std::memcpy(n.destination.data(), v.data + 24, 16);
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

void make_key(const Network& n, FlowKey& key) {
  const int compared = std::memcmp(n.source.data(), n.destination.data(), 16);
  const bool order = compared != 0 ? compared < 0 : n.source_port <= n.destination_port;
  key.a = order ? n.source : n.destination;
  key.b = order ? n.destination : n.source;
  key.a_port = order ? n.source_port : n.destination_port;
  key.b_port = order ? n.destination_port : n.source_port;
  key.protocol = n.protocol;
}

// Later fragments have no ports: they are found by the datagram they are part of.
void make_fragment_key(const ParsedPacket& p, FlowKey& key) {
  key.kind = KeyKind::fragment;
  key.a = p.source;
  key.b = p.destination;
  key.a_port = static_cast<uint16_t>(p.fragment_id >> 16);
  key.b_port = static_cast<uint16_t>(p.fragment_id);
  key.protocol = p.protocol;
}

void read_non_ip(View frame, uint16_t ethertype, ParsedPacket& out) {
  Network n;
  std::memcpy(n.destination.data(), frame.data, 6);
  std::memcpy(n.source.data(), frame.data + 6, 6);
  make_key(n, out.key);
  out.key.ethertype = ethertype == 0 ? uint16_t{1} : ethertype;
  out.source = n.source;
  out.destination = n.destination;
}

}  // namespace

FlowKey fragment_key(const ParsedPacket& packet) {
  FlowKey key = packet.key;
  make_fragment_key(packet, key);
  return key;
}

bool parse_packet(const uint8_t* data, uint32_t len, uint16_t domain, ParsedPacket& out) {
  const View frame{data, len};
  if (!frame.has(kEthernetHeader)) return false;
  out = ParsedPacket{};
  out.key.domain = domain;
  uint16_t ethertype = load16(data + 12);
  View v = frame.skip(kEthernetHeader);
  for (uint32_t shift = 0; shift < 32 && (ethertype == kTypeVlan || ethertype == kTypeQinq) && v.has(4); shift += 16) {
    out.key.vlan |= ((load16(v.data) & 0xfffu) + 1) << shift;
    ethertype = load16(v.data + 2);
    v = v.skip(4);
  }
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
  if (n.later_fragment) {
    make_fragment_key(out, out.key);
    return true;
  }
  const bool icmp = n.protocol == kIcmp || n.protocol == kIcmp6;
  Network quoted;
  if (icmp && n.transport.has(8) && is_icmp_error(n) && read_network(n.transport.skip(8), quoted)) {
    read_transport(quoted);
    make_key(quoted, out.key);
  } else {
    make_key(n, out.key);
  }
  return true;
}

}  // namespace edgeos
