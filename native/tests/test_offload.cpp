// Super-frames against the packets they must become; checksums are verified by a slow implementation of its own.
#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "../ports/checksum.hpp"
#include "../ports/offload.hpp"
#include "check.hpp"

using namespace edgeos;

namespace {

using Bytes = std::vector<uint8_t>;

uint32_t big_endian(const Bytes& bytes, size_t at, size_t count) {
  uint32_t value = 0;
  for (size_t i = 0; i < count; i++) value = value << 8 | bytes.at(at + i);
  return value;
}

void put(Bytes& bytes, size_t at, size_t count, uint32_t value) {
  for (size_t i = 0; i < count; i++) bytes.at(at + i) = static_cast<uint8_t>(value >> 8 * (count - 1 - i));
}

Bytes range_of(const Bytes& bytes, size_t from, size_t to) {
  return Bytes(bytes.begin() + static_cast<long>(from), bytes.begin() + static_cast<long>(to));
}

// RFC 1071 as it is written, 16 bits at a time; 0xffff for bytes that carry their right checksum.
uint16_t slow_sum(const Bytes& bytes, size_t from, uint32_t start = 0) {
  uint32_t sum = start;
  for (size_t i = from; i < bytes.size(); i += 2) {
    sum += static_cast<uint32_t>(bytes[i] << 8 | (i + 1 < bytes.size() ? bytes[i + 1] : 0));
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>((sum & 0xffff) + (sum >> 16));
}

uint32_t slow_pseudo(const Bytes& frame, size_t addresses, size_t bytes, uint8_t protocol, size_t l4) {
  const uint32_t l4_len = static_cast<uint32_t>(frame.size() - l4);
  return slow_sum(range_of(frame, addresses, addresses + bytes), 0) + uint32_t{protocol} + l4_len;
}

struct Shape {
  bool ipv6 = false, udp = false;
  uint32_t vlan_tags = 0, ip_extra = 0, tcp_options = 0, payload = 4000;
  uint16_t gso_size = 1448;
};

struct SuperFrame {
  VnetHeader vnet;
  Bytes frame;
  size_t ip, l4, payload;
};

SuperFrame make(const Shape& shape) {
  SuperFrame made;
  made.ip = 14 + 4 * shape.vlan_tags;
  made.l4 = made.ip + (shape.ipv6 ? 40 : 20) + shape.ip_extra;
  made.payload = made.l4 + (shape.udp ? 8 : 20 + shape.tcp_options);
  Bytes& f = made.frame;
  f.resize(made.payload + shape.payload);
  const uint8_t protocol = shape.udp ? 17 : 6;
  for (size_t i = 0; i < 12; i++) f[i] = static_cast<uint8_t>(0x10 + i);
  for (uint32_t i = 0; i < shape.vlan_tags; i++)
    put(f, 12 + 4 * i, 4, i + 1 < shape.vlan_tags ? 0x88a80007 : 0x81000064);
  put(f, made.ip - 2, 2, shape.ipv6 ? 0x86dd : 0x0800);
  const uint32_t ip_len = static_cast<uint32_t>(f.size() - made.ip);
  if (shape.ipv6) {
    put(f, made.ip, 4, 0x60000000);
    put(f, made.ip + 4, 2, ip_len - 40);
    f[made.ip + 6] = protocol;
    f[made.ip + 7] = 64;
    for (size_t i = 0; i < 32; i++) f[made.ip + 8 + i] = static_cast<uint8_t>(i * 7 + 1);
    if (shape.ip_extra > 0) {  // one destination options header
      f[made.ip + 6] = 60;
      f[made.ip + 40] = protocol;
      f[made.ip + 41] = static_cast<uint8_t>(shape.ip_extra / 8 - 1);
    }
  } else {
    f[made.ip] = static_cast<uint8_t>(0x40 | (20 + shape.ip_extra) / 4);
    put(f, made.ip + 2, 2, ip_len);
    put(f, made.ip + 4, 2, 0xfffe);  // the identification wraps within a few segments
    put(f, made.ip + 6, 2, 0x4000);
    f[made.ip + 8] = 64;
    f[made.ip + 9] = protocol;
    put(f, made.ip + 12, 4, 0x0a000001);
    put(f, made.ip + 16, 4, 0x0a000002);
    for (uint32_t i = 0; i < shape.ip_extra; i++) f[made.ip + 20 + i] = 1;
  }
  put(f, made.l4, 2, 40000);
  put(f, made.l4 + 2, 2, 443);
  if (shape.udp) {
    put(f, made.l4 + 4, 2, static_cast<uint32_t>(f.size() - made.l4));
  } else {
    put(f, made.l4 + 4, 4, 0xfffff000);  // the sequence wraps too
    f[made.l4 + 12] = static_cast<uint8_t>((20 + shape.tcp_options) / 4 << 4);
    f[made.l4 + 13] = 0x80 | 0x10 | 0x08 | 0x01;  // CWR ACK PSH FIN
    for (uint32_t i = 0; i < shape.tcp_options; i++) f[made.l4 + 20 + i] = 1;
  }
  for (size_t i = made.payload; i < f.size(); i++) f[i] = static_cast<uint8_t>(i * 31 + i / 251);
  made.vnet.flags = VnetHeader::kNeedsChecksum;
  made.vnet.gso_type = shape.udp ? VnetHeader::kGsoUdpL4 : shape.ipv6 ? VnetHeader::kGsoTcp6 : VnetHeader::kGsoTcp4;
  made.vnet.gso_size = shape.gso_size;
  made.vnet.csum_start = static_cast<uint16_t>(made.l4);
  made.vnet.csum_offset = shape.udp ? 6 : 16;
  return made;
}

struct Burst {
  OffloadBurst burst;
  PortCounters counters;

  void add(uint32_t slot, const VnetHeader& vnet, const Bytes& frame, uint16_t tpid = 0, uint16_t tci = 0) {
    std::memcpy(burst.slot(slot), &vnet, sizeof vnet);
    if (!frame.empty()) std::memcpy(burst.slot(slot) + sizeof vnet, frame.data(), frame.size());
    burst.add(slot, static_cast<uint32_t>(sizeof vnet + frame.size()), tpid, tci);
  }

  std::vector<Bytes> take_all(uint32_t max = 7) {
    std::vector<Bytes> all;
    std::vector<Packet> out(max);
    while (const uint32_t count = burst.take(out.data(), max, counters))
      for (uint32_t i = 0; i < count; i++) all.emplace_back(out[i].data, out[i].data + out[i].len);
    CHECK(burst.empty());
    CHECK_EQ(counters.received, all.size());
    return all;
  }

  std::vector<Bytes> through(const VnetHeader& vnet, const Bytes& frame) {
    burst.begin(1);
    add(0, vnet, frame);
    counters = {};
    return take_all();
  }
};

void check_segments(const Shape& shape) {
  const SuperFrame super = make(shape);
  Burst burst;
  const std::vector<Bytes> segments = burst.through(super.vnet, super.frame);
  CHECK_EQ(segments.size(), (shape.payload + shape.gso_size - 1) / shape.gso_size);
  const uint8_t protocol = shape.udp ? 17 : 6;
  Bytes joined;
  for (size_t i = 0; i < segments.size(); i++) {
    const Bytes& s = segments[i];
    const bool first = i == 0, last = i + 1 == segments.size();
    CHECK(std::equal(s.begin(), s.begin() + static_cast<long>(super.ip), super.frame.begin()));
    if (shape.ipv6) {
      CHECK_EQ(big_endian(s, super.ip + 4, 2), s.size() - super.ip - 40);
      CHECK_EQ(slow_sum(s, super.l4, slow_pseudo(s, super.ip + 8, 32, protocol, super.l4)), 0xffff);
    } else {
      CHECK_EQ(big_endian(s, super.ip + 2, 2), s.size() - super.ip);
      CHECK_EQ(big_endian(s, super.ip + 4, 2), (0xfffe + i) & 0xffff);
      CHECK_EQ(slow_sum(range_of(s, super.ip, super.l4), 0), 0xffff);
      CHECK_EQ(slow_sum(s, super.l4, slow_pseudo(s, super.ip + 12, 8, protocol, super.l4)), 0xffff);
    }
    if (shape.udp) {
      CHECK_EQ(big_endian(s, super.l4 + 4, 2), s.size() - super.l4);
    } else {
      CHECK_EQ(big_endian(s, super.l4 + 4, 4), static_cast<uint32_t>(0xfffff000 + joined.size()));
      CHECK_EQ(int{s[super.l4 + 13]}, 0x10 | (first ? 0x80 : 0) | (last ? 0x09 : 0));
    }
    CHECK(last || s.size() - super.payload == shape.gso_size);
    joined.insert(joined.end(), s.begin() + static_cast<long>(super.payload), s.end());
  }
  CHECK(joined == range_of(super.frame, super.payload, super.frame.size()));
}

void check_untouched(const VnetHeader& vnet, const Bytes& frame) {
  Burst burst;
  const std::vector<Bytes> out = burst.through(vnet, frame);
  CHECK_EQ(out.size(), 1u);
  CHECK(out.at(0) == frame);
}

}  // namespace

TEST(checksum_of_the_rfc_example) {
  const uint8_t bytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};  // RFC 1071, section 3
  uint8_t field[2];
  checksum_store(field, checksum_add(0, bytes, sizeof bytes));
  CHECK_EQ(field[0] << 8 | field[1], 0xffff - 0xddf2);
}

TEST(checksum_equals_the_slow_one) {
  std::mt19937 random(1);
  for (size_t len = 0; len < 300; len++) {
    Bytes bytes(len);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 3 == 0 ? 0xff : random());
    const size_t split = len / 2 & ~size_t{1};
    uint64_t sum = checksum_add(~uint64_t{0}, bytes.data(), split);  // all ones add nothing
    sum = checksum_add(sum, bytes.data() + split, len - split);
    uint8_t field[2];
    checksum_store(field, sum);
    CHECK_EQ((field[0] << 8 | field[1]) % 0xffff, (0xffff - slow_sum(bytes, 0)) % 0xffff);
  }
}

TEST(tcp_over_ipv4) { check_segments({}); }
TEST(tcp_over_ipv4_with_options) { check_segments({.ip_extra = 8, .tcp_options = 12}); }
TEST(tcp_over_ipv4_behind_vlan) { check_segments({.vlan_tags = 1}); }
TEST(tcp_over_ipv4_behind_two_vlans) { check_segments({.vlan_tags = 2, .tcp_options = 40}); }
TEST(tcp_over_ipv6) { check_segments({.ipv6 = true}); }
TEST(tcp_over_ipv6_with_extension) {
  check_segments({.ipv6 = true, .vlan_tags = 1, .ip_extra = 16, .tcp_options = 12});
}
TEST(udp_over_ipv4) { check_segments({.udp = true, .payload = 5001, .gso_size = 1000}); }
TEST(udp_over_ipv6) { check_segments({.ipv6 = true, .udp = true, .payload = 999, .gso_size = 100}); }
TEST(one_segment_only) { check_segments({.payload = 10}); }
TEST(whole_segments_only) { check_segments({.payload = 2896}); }
TEST(largest_super_frame_in_large_segments) { check_segments({.payload = 65535 - 40, .gso_size = 65000}); }
TEST(segments_of_one_byte) { check_segments({.payload = 3000, .gso_size = 1}); }

TEST(ecn_flag_of_the_header) {
  SuperFrame super = make({});
  super.vnet.gso_type |= VnetHeader::kGsoEcn;
  Burst burst;
  CHECK_EQ(burst.through(super.vnet, super.frame).size(), 3u);
}

TEST(partial_checksum_is_finished) {
  for (const bool udp : {false, true}) {
    SuperFrame whole = make({.udp = udp, .payload = 333});
    whole.vnet.gso_type = VnetHeader::kGsoNone;
    const uint8_t protocol = udp ? 17 : 6;
    const uint32_t pseudo = slow_pseudo(whole.frame, whole.ip + 12, 8, protocol, whole.l4);
    put(whole.frame, whole.l4 + whole.vnet.csum_offset, 2, (pseudo & 0xffff) + (pseudo >> 16));
    Burst burst;
    const std::vector<Bytes> out = burst.through(whole.vnet, whole.frame);
    CHECK_EQ(out.size(), 1u);
    CHECK_EQ(slow_sum(out.at(0), whole.l4, pseudo), 0xffff);
  }
}

TEST(vlan_tag_is_put_back) {
  SuperFrame super = make({});
  const SuperFrame tagged = make({.vlan_tags = 1});
  Burst burst;
  burst.burst.begin(1);
  burst.add(0, super.vnet, super.frame, 0x8100, 0x0064);
  super.vnet.gso_type = VnetHeader::kGsoNone;
  burst.add(1, super.vnet, super.frame, 0x88a8, 0x2005);
  const std::vector<Bytes> out = burst.take_all();
  CHECK_EQ(out.size(), 4u);
  CHECK_EQ(out.at(0).size(), 14u + 4 + 40 + 1448);
  CHECK(range_of(out.at(0), 0, 18) == range_of(tagged.frame, 0, 18));
  CHECK_EQ(big_endian(out.at(3), 12, 4), 0x88a82005u);
  CHECK_EQ(slow_sum(out.at(3), tagged.l4), 0xffff);  // begun 4 bytes further on; the field held no pseudo header
}

TEST(a_frame_that_contradicts_its_header_stays_as_it_is) {
  const SuperFrame good = make({});
  const auto with_vnet = [&](auto change) {
    VnetHeader vnet = good.vnet;
    change(vnet);
    check_untouched(vnet, good.frame);
  };
  with_vnet([](VnetHeader& v) { v.gso_size = 0; });
  with_vnet([](VnetHeader& v) { v.gso_type = 77; });
  with_vnet([](VnetHeader& v) { v.gso_type = VnetHeader::kGsoTcp6; });
  with_vnet([](VnetHeader& v) { v.gso_type = VnetHeader::kGsoUdpL4; });
  with_vnet([](VnetHeader& v) { v.gso_type = 0, v.csum_start = 0xffff; });
  const uint16_t last_byte = static_cast<uint16_t>(good.frame.size() - 1);
  with_vnet([&](VnetHeader& v) { v.gso_type = 0, v.csum_start = 0, v.csum_offset = last_byte; });
  const auto with_frame = [&](size_t at, size_t count, uint32_t value) {
    Bytes frame = good.frame;
    put(frame, at, count, value);
    check_untouched(good.vnet, frame);
  };
  with_frame(12, 2, 0x0806);           // not IP
  with_frame(good.ip, 1, 0x41);        // header shorter than 20 bytes
  with_frame(good.ip, 1, 0x65);        // version 6
  with_frame(good.ip + 2, 2, 0xffff);  // lengths that lie
  with_frame(good.ip + 2, 2, 100);
  with_frame(good.ip + 6, 2, 0x2000);  // a fragment
  with_frame(good.ip + 9, 1, 17);      // UDP
  with_frame(good.l4 + 12, 1, 0x10);   // TCP header shorter than 20 bytes
  check_untouched(good.vnet, {});
  check_untouched(make({.payload = 0}).vnet, make({.payload = 0}).frame);
  check_untouched(make({.ipv6 = true, .ip_extra = 400}).vnet, make({.ipv6 = true, .ip_extra = 400}).frame);
}

TEST(hostile_headers_and_frames_stay_within_bounds) {
  std::mt19937 random(20);
  Burst burst;
  for (int round = 0; round < 20000; round++) {
    const Shape shape{.ipv6 = random() % 2 == 0,
                      .udp = random() % 3 == 0,
                      .vlan_tags = static_cast<uint32_t>(random() % 4),
                      .ip_extra = static_cast<uint32_t>(random() % 3 * 8),
                      .payload = static_cast<uint32_t>(random() % 600),
                      .gso_size = static_cast<uint16_t>(random() % 200)};
    SuperFrame super = make(shape);
    for (auto i = random() % 6; i > 0; i--) super.frame[random() % super.payload] = static_cast<uint8_t>(random());
    if (random() % 2 == 0) super.frame.resize(random() % (super.frame.size() + 1));
    uint8_t* header = reinterpret_cast<uint8_t*>(&super.vnet);
    for (auto i = random() % 4; i > 0; i--) header[random() % sizeof super.vnet] = static_cast<uint8_t>(random());
    size_t bytes = 0;
    const std::vector<Bytes> out = burst.through(super.vnet, super.frame);
    for (const Bytes& packet : out) bytes += packet.size();
    CHECK(!out.empty() && bytes >= super.frame.size());
  }
}

TEST(checksums_that_nobody_tells_of_are_completed) {
  std::mt19937 random(21);
  for (int round = 0; round < 4000; round++) {
    const SuperFrame packet = make({.ipv6 = random() % 2 == 0,
                                    .udp = random() % 2 == 0,
                                    .vlan_tags = static_cast<uint32_t>(random() % 3),
                                    .ip_extra = static_cast<uint32_t>(random() % 2 * 8),
                                    .payload = static_cast<uint32_t>(random() % 1400)});
    const bool ipv6 = packet.frame[packet.ip] >> 4 == 6;
    const uint8_t protocol = packet.payload - packet.l4 == 8 ? 17 : 6;
    const size_t field = packet.l4 + (protocol == 17 ? 6 : 16);
    const uint32_t pseudo = slow_pseudo(packet.frame, packet.ip + (ipv6 ? 8 : 12), ipv6 ? 32 : 8, protocol, packet.l4);
    Bytes partial = packet.frame;
    for (size_t i = packet.payload; i < partial.size(); i++) partial[i] = static_cast<uint8_t>(random());
    put(partial, field, 2, slow_sum({}, 0, pseudo));
    Bytes padded = partial;
    padded.resize(padded.size() + random() % 20, 0xee);  // as short frames are
    complete_checksum(padded.data(), static_cast<uint32_t>(padded.size()));
    const Bytes completed = range_of(padded, 0, partial.size());
    CHECK_EQ(slow_sum(completed, packet.l4, pseudo), 0xffff);

    Bytes again = completed;  // a right checksum stays, and so does a wrong one
    complete_checksum(again.data(), static_cast<uint32_t>(again.size()));
    CHECK(again == completed);
    put(again, field, 2, big_endian(completed, field, 2) ^ 0x0101);
    if (big_endian(again, field, 2) == slow_sum({}, 0, pseudo)) continue;
    const Bytes wrong = again;
    complete_checksum(again.data(), static_cast<uint32_t>(again.size()));
    CHECK(again == wrong);
  }
}

TEST(completing_a_checksum_stays_within_the_frame) {
  std::mt19937 random(22);
  for (int round = 0; round < 20000; round++) {
    Bytes frame = make({.ipv6 = random() % 2 == 0,
                        .udp = random() % 2 == 0,
                        .ip_extra = static_cast<uint32_t>(random() % 3 * 8),
                        .payload = static_cast<uint32_t>(random() % 64)}).frame;
    for (auto i = random() % 6; i > 0; i--) frame[random() % frame.size()] = static_cast<uint8_t>(random());
    frame.resize(random() % (frame.size() + 1));
    frame.shrink_to_fit();  // so that the sanitizers see every byte behind it
    const Bytes before = frame;
    complete_checksum(frame.data(), static_cast<uint32_t>(frame.size()));
    size_t changed = 0;
    for (size_t i = 0; i < frame.size(); i++) changed += frame[i] != before[i];
    CHECK(changed <= 2);
  }
}
