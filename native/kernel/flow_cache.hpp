// What the flow table last said of packets with the same header, so that the packets of a known flow are not parsed, hashed
// and looked up again each time.
//
// It is for plain packets alone: TCP or UDP right behind an IPv4 header without options that is no fragment, or an IPv6 header
// without extensions, without VLAN tags, 60 bytes or more. Of their first 60 bytes everything is compared that their flow key
// depends on; so equal headers that came through the same port have equal keys. A line holds as long as the chain instance
// that it names has lost no flow since.
//
// Owner: the dispatcher; not thread-safe. Fixed size; a line that is wanted by two flows belongs to the later one.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "copy.hpp"
#include "keyed_hash.hpp"
#include "message.hpp"

namespace edgeos {

struct ChainInstance;

// Who a packet belongs to.
struct FlowPlace {
  ChainInstance* instance = nullptr;
  uint32_t version = 0;  // of the instance's flows
  uint32_t flow = 0;     // number within the instance
};

class FlowCache {
 public:
  struct alignas(64) Line {
    WordPair header[3] = {};
    FlowPlace place;
  };
  static_assert(sizeof(Line) == 64);

  FlowCache() : lines_(kLines) {}
  void clear() { lines_.assign(kLines, Line{}); }

  // The line that a packet may have; nullptr when it has none.
  EDGEOS_INLINE Line* line_of(const uint8_t* data, uint32_t len) {
    if (len < kEnd) return nullptr;
    switch (load<uint16_t>(data + kType)) {
      case kIpv4: return line(load<uint64_t>(data + 26), load<uint32_t>(data + 34));
      case kIpv6:
        return line(load<uint64_t>(data + 22) ^ load<uint64_t>(data + 30) ^ load<uint64_t>(data + 38) ^ load<uint64_t>(data + 46),
                    load<uint32_t>(data + 54));
      default: return nullptr;
    }
  }
  // What is known of the packet with this line; its instance is nullptr when that is nothing.
  EDGEOS_INLINE static FlowPlace find(const Line* line, const uint8_t* data, uint16_t port) {
    if (line == nullptr) return {};
    WordPair header[3];
    read_header(data, port, header);
    const WordPair other = (header[0] ^ line->header[0]) | (header[1] ^ line->header[1]) | (header[2] ^ line->header[2]);
    return (other[0] | other[1]) == 0 ? line->place : FlowPlace{};
  }
  // Nothing is kept of packets that are not plain.
  void keep(const uint8_t* data, uint32_t len, uint16_t port, const FlowPlace& place) {
    Line* line = line_of(data, len);
    if (line == nullptr || !is_plain(data)) return;
    read_header(data, port, line->header);
    line->place = place;
  }

 private:
  static constexpr uint32_t kLines = 4096;
  static constexpr uint32_t kType = 12, kEnd = 60;      // bytes of a frame that are compared, in part
  static constexpr uint16_t kIpv4 = 0x0008, kIpv6 = 0xdd86;  // types as they are loaded
  static constexpr uint8_t kTcp = 6, kUdp = 17;
  static constexpr WordPair kMasks[2][3] = {
      // IPv4: type, version and length; fragment, protocol, source | source, destination, ports | nothing
      {{0xffffff, 0xffff0000ff00ff3f}, {~uint64_t{0}, 0xffff}, {0, 0}},
      // IPv6: type, version; next header, source | source, destination | destination, ports
      {{0xf0ffff, 0xffffffffffff00ff}, {~uint64_t{0}, ~uint64_t{0}}, {~uint64_t{0}, 0xffffffffffff}},
  };

  template <class T>
  static T load(const uint8_t* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  EDGEOS_INLINE static void read_header(const uint8_t* data, uint16_t port, WordPair (&header)[3]) {
    const WordPair(&masks)[3] = kMasks[data[kType] == (kIpv6 & 0xff)];
    for (uint32_t i = 0; i < 3; i++) {
      std::memcpy(&header[i], data + kType + i * 16, 16);
      header[i] &= masks[i];
    }
    header[2][1] |= uint64_t{port} << 48;
  }
  static bool is_plain(const uint8_t* data) {
    if (load<uint16_t>(data + kType) == kIpv6) return data[14] >> 4 == 6 && (data[20] == kTcp || data[20] == kUdp);
    const bool whole = ((data[20] & 0x3f) | data[21]) == 0;  // no fragment
    return data[14] == 0x45 && whole && (data[23] == kTcp || data[23] == kUdp);
  }
  EDGEOS_INLINE Line* line(uint64_t addresses, uint64_t ports) {
    return &lines_[fold(addresses ^ seed_[0], ports ^ seed_[1]) % kLines];
  }

  std::vector<Line> lines_;
  uint64_t seed_[2] = {random_seed(), random_seed()};
};
static_assert(std::endian::native == std::endian::little, "headers are compared as they are loaded");

}  // namespace edgeos
