// The flow cache against the parser: packets that it takes for one flow have one key, whatever byte of them differs.
#include "../kernel/flow_cache.hpp"

#include <random>

#include "../kernel/packet_parser.hpp"
#include "check.hpp"

using namespace edgeos;

namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937;

constexpr uint16_t kPort = 3;

// What the cache hands back; it never looks into the instance.
ChainInstance* const kSomeone = reinterpret_cast<ChainInstance*>(uintptr_t{64});

// 64 random bytes with an IPv4 or IPv6 header over them, as plain as can be.
Bytes plain(Random& random, bool ipv6, uint8_t protocol) {
  Bytes frame(64);
  for (uint8_t& byte : frame) byte = static_cast<uint8_t>(random());
  frame[12] = ipv6 ? 0x86 : 0x08;
  frame[13] = ipv6 ? 0xdd : 0x00;
  if (ipv6) {
    frame[14] = static_cast<uint8_t>(0x60 | (frame[14] & 0xf));
    frame[20] = protocol;
  } else {
    frame[14] = 0x45;
    frame[20] &= 0xc0;
    frame[21] = 0;
    frame[23] = protocol;
  }
  return frame;
}

bool finds(FlowCache& cache, const Bytes& frame, uint16_t port = kPort) {
  const auto len = static_cast<uint32_t>(frame.size());
  return FlowCache::find(cache.line_of(frame.data(), len), frame.data(), port).instance == kSomeone;
}

void keep(FlowCache& cache, const Bytes& frame) {
  cache.keep(frame.data(), static_cast<uint32_t>(frame.size()), kPort, {kSomeone, 1, 1});
}

FlowKey key(const Bytes& frame, bool& first_fragment) {
  FlowKey found;
  CHECK(parse_key(frame.data(), static_cast<uint32_t>(frame.size()), 0, found, first_fragment));
  return found;
}

// Bytes that say nothing of the flow: addresses of Ethernet, sizes, time to live, checksums, what follows the ports.
bool is_free(size_t at, bool ipv6) {
  if (at < 12) return true;
  if (ipv6) return (at > 14 && at < 20) || at == 21 || at > 57;
  return (at > 14 && at < 20) || at == 22 || at == 24 || at == 25 || at > 37;
}

}  // namespace

TEST(what_is_found_has_the_same_key) {
  Random random(7);
  FlowCache cache;
  for (uint32_t round = 0; round < 20'000; round++) {
    const bool ipv6 = round % 2 == 1;
    const Bytes frame = plain(random, ipv6, round % 4 < 2 ? 6 : 17);
    keep(cache, frame);
    CHECK(finds(cache, frame));
    Bytes other = frame;
    const size_t at = random() % 62;
    other[at] ^= static_cast<uint8_t>(1 + random() % 255);
    bool fragment = false, other_fragment = false;
    const bool same = key(frame, fragment) == key(other, other_fragment) && !fragment && !other_fragment;
    if (finds(cache, other)) CHECK(same);
    if (is_free(at, ipv6)) CHECK(finds(cache, other));
  }
}

TEST(only_plain_packets_are_kept) {
  Random random(8);
  FlowCache cache;
  const auto refused = [&](bool ipv6, size_t at, uint8_t value) {
    Bytes frame = plain(random, ipv6, 17);
    frame[at] = value;
    keep(cache, frame);
    CHECK(!finds(cache, frame));
  };
  refused(false, 12, 0x81);  // a VLAN tag
  refused(false, 13, 0x06);  // ARP
  refused(false, 14, 0x46);  // options
  refused(false, 14, 0x55);  // another version
  refused(false, 20, 0x20);  // the first fragment
  refused(false, 21, 0x01);  // a later one
  refused(false, 23, 1);     // ICMP
  refused(false, 23, 132);   // SCTP
  refused(true, 14, 0x45);   // another version
  refused(true, 20, 0);      // an extension header
  refused(true, 20, 44);     // a fragment
  refused(true, 20, 58);     // ICMP
}

TEST(ports_and_short_frames_are_kept_apart) {
  Random random(9);
  FlowCache cache;
  Bytes frame = plain(random, false, 6);
  keep(cache, frame);
  CHECK(!finds(cache, frame, kPort + 1));
  frame.resize(59);
  CHECK(!finds(cache, frame));
  keep(cache, frame);
  CHECK(!finds(cache, frame));
  cache.clear();
  frame.resize(60);
  CHECK(!finds(cache, frame));
}
