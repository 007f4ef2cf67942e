// Known packets, and hostile bytes of every length in an allocation of exactly that length, so that a sanitizer sees any
// read beyond the frame.
#include "../kernel/packet_parser.hpp"

#include <memory>
#include <random>

#include "../kernel/client_prefix.hpp"
#include "check.hpp"

using namespace edgeos;

namespace {

using Bytes = std::vector<uint8_t>;

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const Bytes kA4 = {10, 0, 0, 1}, kB4 = {192, 0, 2, 1};
const Bytes kA6 = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
const Bytes kB6 = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};

Bytes u16(uint32_t v) { return {static_cast<uint8_t>(v >> 8), static_cast<uint8_t>(v)}; }
Bytes u32(uint32_t v) { return u16(v >> 16) + u16(v & 0xffff); }
Bytes ethernet(uint16_t type, const Bytes& payload, const Bytes& tags = {}) {
  return Bytes{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1} + tags + u16(type) + payload;
}
Bytes tag(uint16_t type, uint16_t id) { return u16(type) + u16(id); }
Bytes ports(uint16_t source, uint16_t destination) { return u16(source) + u16(destination) + Bytes(8); }
Bytes ipv4(uint8_t protocol, const Bytes& payload, bool swapped = false, uint16_t fragment = 0, const Bytes& options = {}) {
  return Bytes{static_cast<uint8_t>(0x45 + options.size() / 4), 0} + u16(static_cast<uint16_t>(20 + options.size() + payload.size())) +
         u16(77) + u16(fragment) + Bytes{64, protocol, 0, 0} + (swapped ? kB4 + kA4 : kA4 + kB4) + options + payload;
}
Bytes ipv6(uint8_t next, const Bytes& payload, bool swapped = false) {
  return Bytes{0x60, 0, 0, 0} + u16(static_cast<uint16_t>(payload.size())) + Bytes{next, 64} + (swapped ? kB6 + kA6 : kA6 + kB6) + payload;
}
Bytes extension(uint8_t next, uint8_t units) { return Bytes{next, units} + Bytes(6 + size_t{units} * 8); }
Bytes fragment6(uint8_t next, uint16_t offset_and_more, uint32_t id) { return Bytes{next, 0} + u16(offset_and_more) + u32(id); }

// Parsed from an allocation of its exact size, in both ways, which must agree.
ParsedPacket parse(const Bytes& frame, uint16_t domain = 0) {
  const auto len = static_cast<uint32_t>(frame.size());
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[frame.size()]);
  std::copy(frame.begin(), frame.end(), exact.get());
  ParsedPacket parsed;
  FlowKey key;
  bool first_fragment = false;
  const bool valid = parse_packet(exact.get(), len, domain, parsed);
  CHECK_EQ(valid, frame.size() >= 14);
  CHECK_EQ(parse_key(exact.get(), len, domain, key, first_fragment), valid);
  if (valid) {
    CHECK(key == parsed.key);
    CHECK_EQ(first_fragment, parsed.fragment && !parsed.later_fragment);
  }
  return parsed;
}

FlowKey key(const Bytes& frame) { return parse(frame).key; }

}  // namespace

TEST(a_packet_and_its_reply_have_one_key) {
  for (const uint8_t protocol : std::initializer_list<uint8_t>{6, 17, 132, 136}) {
    CHECK(key(ethernet(0x800, ipv4(protocol, ports(1000, 53)))) == key(ethernet(0x800, ipv4(protocol, ports(53, 1000), true))));
    CHECK(key(ethernet(0x86dd, ipv6(protocol, ports(1000, 53)))) == key(ethernet(0x86dd, ipv6(protocol, ports(53, 1000), true))));
    CHECK(!(key(ethernet(0x800, ipv4(protocol, ports(1000, 53)))) == key(ethernet(0x800, ipv4(protocol, ports(1001, 53))))));
    // Ports exchanged without the addresses: another flow.
    CHECK(!(key(ethernet(0x800, ipv4(protocol, ports(1000, 53)))) == key(ethernet(0x800, ipv4(protocol, ports(53, 1000))))));
  }
}

TEST(fields_of_a_udp_packet) {
  const ParsedPacket p = parse(ethernet(0x800, ipv4(17, ports(1000, 53))), 5);
  CHECK_EQ(p.ip_version, 4);
  CHECK_EQ(p.protocol, 17);
  CHECK_EQ(p.source_port, 1000);
  CHECK_EQ(p.destination_port, 53);
  CHECK_EQ(p.key.domain(), 5);
  CHECK_EQ(p.key.vlan(), 0u);
  CHECK(p.source.bytes() == (std::array<uint8_t, 16>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1}));
  CHECK(!p.fragment && !p.later_fragment);
}

TEST(options_and_extension_headers_are_skipped) {
  CHECK(key(ethernet(0x800, ipv4(17, ports(1, 2)))) == key(ethernet(0x800, ipv4(17, ports(1, 2), false, 0, Bytes(12, 1)))));
  const FlowKey plain = key(ethernet(0x86dd, ipv6(17, ports(1, 2))));
  CHECK(plain == key(ethernet(0x86dd, ipv6(0, extension(43, 0) + extension(60, 2) + extension(17, 1) + ports(1, 2)))));
  CHECK(plain == key(ethernet(0x86dd, ipv6(51, Bytes{17, 4} + Bytes(22) + ports(1, 2)))));
  CHECK(plain == key(ethernet(0x86dd, ipv6(44, fragment6(17, 0, 9) + ports(1, 2)))));  // an atomic fragment
}

TEST(endless_extension_headers_end) {
  Bytes headers;
  for (int i = 0; i < 100; i++) headers = headers + extension(0, 0);
  CHECK_EQ(parse(ethernet(0x86dd, ipv6(0, headers))).ip_version, 6);
}

TEST(vlan_tags_are_part_of_the_key) {
  const Bytes ip = ipv4(17, ports(1, 2));
  CHECK_EQ(key(ethernet(0x800, ip, tag(0x8100, 10))).vlan(), 11u);
  CHECK_EQ(key(ethernet(0x800, ip, tag(0x8100, 0xe00a))).vlan(), 11u);  // priority is no part of the id
  CHECK_EQ(key(ethernet(0x800, ip, tag(0x88a8, 10) + tag(0x8100, 20))).vlan(), 11u | 21u << 16);
  CHECK_EQ(parse(ethernet(0x800, ip, tag(0x88a8, 10) + tag(0x8100, 20))).source_port, 1);
  CHECK_EQ(parse(ethernet(0x800, ip, tag(0x8100, 1) + tag(0x8100, 2) + tag(0x8100, 3))).ip_version, 0);
}

TEST(fragments_share_the_key_of_their_datagram) {
  const ParsedPacket first = parse(ethernet(0x800, ipv4(17, ports(1, 2), false, 0x2000)));
  const ParsedPacket later = parse(ethernet(0x800, ipv4(17, Bytes(64), false, 0x2008)));
  const ParsedPacket last = parse(ethernet(0x800, ipv4(17, Bytes(64), false, 0x0010)));
  CHECK(first.fragment && !first.later_fragment && first.source_port == 1);
  CHECK(later.later_fragment && last.later_fragment && later.source_port == 0);
  CHECK(later.key == fragment_key(first) && last.key == later.key);
  CHECK(!(later.key == first.key));
  CHECK(!parse(ethernet(0x800, ipv4(17, ports(1, 2), false, 0x4000))).fragment);  // do not fragment
}

TEST(fragments_over_ipv6_whatever_the_first_one_begins_with) {
  const ParsedPacket later = parse(ethernet(0x86dd, ipv6(44, fragment6(60, 65, 9) + Bytes(64))));
  const ParsedPacket plain = parse(ethernet(0x86dd, ipv6(44, fragment6(17, 1, 9) + ports(1, 2))));
  const ParsedPacket extended = parse(ethernet(0x86dd, ipv6(44, fragment6(60, 1, 9) + extension(17, 0) + ports(1, 2))));
  CHECK(later.later_fragment && plain.fragment && !plain.later_fragment);
  CHECK_EQ(extended.source_port, 1);
  CHECK(later.key == fragment_key(plain));
  CHECK(later.key == fragment_key(extended));
  CHECK(!(later.key == fragment_key(parse(ethernet(0x86dd, ipv6(44, fragment6(17, 1, 10) + ports(1, 2)))))));
}

TEST(icmp_errors_have_the_key_of_what_they_quote) {
  const Bytes quoted4 = ipv4(17, ports(1000, 53)), quoted6 = ipv6(6, ports(1000, 80));
  for (const uint8_t type : std::initializer_list<uint8_t>{3, 4, 5, 11, 12})
    CHECK(key(ethernet(0x800, quoted4)) == key(ethernet(0x800, ipv4(1, Bytes{type, 0} + Bytes(6) + quoted4, true))));
  CHECK(key(ethernet(0x86dd, quoted6)) == key(ethernet(0x86dd, ipv6(58, Bytes{1, 0} + Bytes(6) + quoted6, true))));
  // An answer to a question is not an error, whatever its data look like.
  CHECK(!(key(ethernet(0x800, quoted4)) == key(ethernet(0x800, ipv4(1, Bytes{0, 0} + Bytes(6) + quoted4, true)))));
}

TEST(echoes_are_told_apart_by_their_identifier) {
  const auto echo = [](uint8_t type, uint16_t id, bool swapped) {
    return key(ethernet(0x800, ipv4(1, Bytes{type, 0, 0, 0} + u16(id) + u16(1), swapped)));
  };
  CHECK(echo(8, 5, false) == echo(0, 5, true));
  CHECK(!(echo(8, 5, false) == echo(8, 6, false)));
}

TEST(other_ethertypes_are_known_by_their_ethernet_addresses) {
  const ParsedPacket arp = parse(ethernet(0x0806, Bytes(28)));
  CHECK_EQ(arp.ip_version, 0);
  CHECK_EQ(arp.key.ethertype(), 0x0806);
  CHECK_EQ(arp.source.bytes()[5], 1);
  CHECK(!(arp.key == key(ethernet(0x88cc, Bytes(28)))));
  // An IP packet that is not one.
  CHECK_EQ(parse(ethernet(0x800, Bytes(40))).ip_version, 0);
  CHECK_EQ(parse(ethernet(0x86dd, ipv4(17, ports(1, 2)))).ip_version, 0);
}

TEST(limits_count_prefixes_of_ipv6_and_addresses_of_ipv4) {
  const auto six = [](uint8_t seventh, uint8_t eighth, uint8_t last) {
    return std::bit_cast<Address>(std::array<uint8_t, 16>{0xfd, 0, 0, 0, 0, 0, seventh, eighth, 1, 2, 3, 4, 5, 6, 7, last});
  };
  CHECK(client_prefix(six(0, 1, 1)) == client_prefix(six(0, 1, 2)));
  CHECK(!(client_prefix(six(0, 1, 1)) == client_prefix(six(0, 2, 1))));
  CHECK(client_prefix(six(0, 0xf1, 1), 60) == client_prefix(six(0, 0xff, 2), 60));
  CHECK(!(client_prefix(six(0, 0xf1, 1), 60) == client_prefix(six(0, 0xef, 1), 60)));
  CHECK(client_prefix(six(0, 1, 1), 128) == six(0, 1, 1));
  CHECK(client_prefix(six(0, 1, 1), 127) == client_prefix(six(0, 1, 0), 127));
  const auto four = std::bit_cast<Address>(std::array<uint8_t, 16>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1});
  for (const auto bits : std::array<uint8_t, 3>{1, 64, 128}) CHECK(client_prefix(four, bits) == four);
}

TEST(truncated_anywhere) {
  const std::vector<Bytes> frames = {
      ethernet(0x800, ipv4(17, ports(1, 2), false, 0, Bytes(40, 1))),
      ethernet(0x800, ipv4(1, Bytes{3, 0} + Bytes(6) + ipv4(17, ports(1, 2)))),
      ethernet(0x86dd, ipv6(0, extension(43, 1) + extension(44, 0) + fragment6(51, 0, 1) + Bytes{17, 4} + Bytes(22) + ports(1, 2))),
      ethernet(0x86dd, ipv6(58, Bytes{1, 0} + Bytes(6) + ipv6(60, extension(6, 0) + ports(1, 2)))),
      ethernet(0x800, ipv4(17, ports(1, 2)), tag(0x88a8, 10) + tag(0x8100, 20)),
  };
  for (const Bytes& frame : frames)
    for (size_t len = 0; len <= frame.size(); len++) parse(Bytes(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(len)));
}

TEST(hostile_bytes_of_every_length) {
  std::mt19937 random(1);
  const Bytes interesting = {0, 1, 4, 6, 8, 17, 43, 44, 51, 58, 60, 0x45, 0x46, 0x4f, 0x60, 0x81, 0x86, 0x88, 0xa8, 0xdd, 0xff};
  for (uint32_t len = 0; len <= 200; len++) {
    for (int round = 0; round < 60; round++) {
      Bytes frame(len);
      for (uint8_t& b : frame)
        b = random() % 2 == 0 ? interesting[random() % interesting.size()] : static_cast<uint8_t>(random());
      if (len > 14 && round % 4 != 0) {
        static constexpr uint16_t kTypes[] = {0x800, 0x86dd, 0x8100};
        const uint16_t type = kTypes[static_cast<size_t>(round % 3)];
        frame[12] = static_cast<uint8_t>(type >> 8);
        frame[13] = static_cast<uint8_t>(type);
        frame[14] = type == 0x800 ? static_cast<uint8_t>(0x40 | (random() & 15)) : 0x60;
      }
      parse(frame);
    }
  }
}

TEST(mutated_packets) {
  std::mt19937 random(2);
  const Bytes base = ethernet(0x86dd, ipv6(0, extension(43, 1) + fragment6(58, 0, 1) + Bytes{1, 0} + Bytes(6) + ipv6(60, extension(6, 0) + ports(1, 2))));
  for (int i = 0; i < 20'000; i++) {
    Bytes frame = base;
    for (uint32_t n = 0; n < 1 + random() % 4; n++) frame[12 + random() % (frame.size() - 12)] = static_cast<uint8_t>(random());
    frame.resize(random() % (frame.size() + 1));
    parse(frame);
  }
}
