#include "offload.hpp"

#include <time.h>

#include <algorithm>
#include <cstring>

#include "checksum.hpp"

namespace edgeos {
namespace {

constexpr uint8_t kTcp = 6, kUdp = 17, kHopByHop = 0, kRouting = 43, kDestination = 60;
constexpr uint8_t kFin = 0x01, kPsh = 0x08, kCwr = 0x80;
constexpr uint32_t kVlanTagsMax = 2;
// Headers are repeated in each segment; more than this is no honest super-frame, and would multiply its bytes.
constexpr uint32_t kHeaderBytesMax = 256;

uint16_t load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }
uint32_t load32(const uint8_t* p) { return uint32_t{load16(p)} << 16 | load16(p + 2); }
void store16(uint8_t* p, uint32_t value) {
  p[0] = static_cast<uint8_t>(value >> 8);
  p[1] = static_cast<uint8_t>(value);
}
void store32(uint8_t* p, uint32_t value) {
  store16(p, value >> 16);
  store16(p + 2, value);
}
bool is_vlan(uint16_t ether_type) { return ether_type == 0x8100 || ether_type == 0x88a8 || ether_type == 0x9100; }

}  // namespace

bool finish_checksum(const VnetHeader& vnet, uint8_t* frame, uint32_t len) {
  const uint32_t field = uint32_t{vnet.csum_start} + vnet.csum_offset;
  if (field + 2 > len) return false;
  // The field holds the pseudo header's sum, which so enters the total.
  checksum_store_l4(frame + field, checksum_add(0, frame + vnet.csum_start, len - vnet.csum_start));
  return true;
}

bool Segmenter::begin(const VnetHeader& vnet, const uint8_t* frame, uint32_t len) {
  frame_ = frame;
  len_ = at_ = len;
  gso_size_ = vnet.gso_size;
  segments_ = 0;
  if (gso_size_ == 0 || !locate_headers()) return false;
  const uint8_t kind = vnet.gso_type & static_cast<uint8_t>(~VnetHeader::kGsoEcn);
  if (kind == VnetHeader::kGsoUdpL4) {
    if (protocol_ != kUdp) return false;
    payload_ = l4_ + 8;
  } else {
    const uint8_t expected = ipv6_ ? VnetHeader::kGsoTcp6 : VnetHeader::kGsoTcp4;
    if (protocol_ != kTcp || kind != expected || l4_ + 20 > len) return false;
    const uint32_t header = (frame[l4_ + 12] >> 4) * 4u;
    if (header < 20) return false;
    payload_ = l4_ + header;
  }
  if (payload_ >= len || payload_ > kHeaderBytesMax) return false;
  at_ = payload_;
  return true;
}

bool Segmenter::locate_headers() {
  uint32_t type = 12;
  if (len_ < type + 2) return false;
  for (uint32_t tags = 0; tags < kVlanTagsMax && is_vlan(load16(frame_ + type)); tags++) {
    type += 4;
    if (len_ < type + 2) return false;
  }
  ip_ = type + 2;
  if (load16(frame_ + type) == 0x0800) return locate_ipv4();
  return load16(frame_ + type) == 0x86dd && locate_ipv6();
}

bool Segmenter::locate_ipv4() {
  const uint8_t* ip = frame_ + ip_;
  if (len_ < ip_ + 20 || ip[0] >> 4 != 4) return false;
  const uint32_t header = (ip[0] & 15) * 4u;
  const bool fragment = (load16(ip + 6) & 0x3fff) != 0;
  if (header < 20 || fragment || load16(ip + 2) != len_ - ip_) return false;
  ipv6_ = false;
  protocol_ = ip[9];
  l4_ = ip_ + header;
  return true;
}

bool Segmenter::locate_ipv6() {
  const uint8_t* ip = frame_ + ip_;
  if (len_ < ip_ + 40 || ip[0] >> 4 != 6 || load16(ip + 4) != len_ - ip_ - 40) return false;
  ipv6_ = true;
  protocol_ = ip[6];
  l4_ = ip_ + 40;
  while (protocol_ == kHopByHop || protocol_ == kRouting || protocol_ == kDestination) {
    const uint8_t* extension = frame_ + l4_;
    if (len_ < l4_ + 8) return false;
    if (protocol_ == kRouting && extension[3] != 0) return false;  // the checksum is for an address further on
    protocol_ = extension[0];
    l4_ += (extension[1] + 1u) * 8;
  }
  return true;
}

uint32_t Segmenter::next_len() const { return payload_ + std::min(gso_size_, len_ - at_); }

void Segmenter::write_next(uint8_t* out) {
  const uint32_t len = next_len(), piece = len - payload_;
  const bool first = at_ == payload_, last = at_ + piece == len_;
  std::memcpy(out, frame_, payload_);
  std::memcpy(out + payload_, frame_ + at_, piece);

  uint8_t* ip = out + ip_;
  uint8_t* l4 = out + l4_;
  if (ipv6_) {
    store16(ip + 4, len - ip_ - 40);
  } else {
    store16(ip + 2, len - ip_);
    store16(ip + 4, load16(ip + 4) + uint32_t{segments_});
    store16(ip + 10, 0);
    checksum_store(ip + 10, checksum_add(0, ip, l4_ - ip_));
  }
  uint8_t* checksum = l4 + (protocol_ == kTcp ? 16 : 6);
  if (protocol_ == kTcp) {
    store32(l4 + 4, load32(l4 + 4) + (at_ - payload_));
    if (!first) l4[13] &= static_cast<uint8_t>(~kCwr);
    if (!last) l4[13] &= static_cast<uint8_t>(~(kFin | kPsh));
  } else {
    store16(l4 + 4, len - l4_);
  }
  store16(checksum, 0);
  const uint64_t pseudo = checksum_pseudo_header(ip + (ipv6_ ? 8 : 12), ipv6_ ? 32 : 8, protocol_, len - l4_);
  checksum_store_l4(checksum, checksum_add(pseudo, l4, len - l4_));
  at_ += piece;
  segments_++;
}

OffloadBurst::OffloadBurst()
    : slots_(std::make_unique_for_overwrite<uint8_t[]>(size_t{kFramesMax} * kSlotBytes)),
      segments_(std::make_unique_for_overwrite<uint8_t[]>(kSegmentBytes)) {}

void OffloadBurst::begin(uint64_t time_ns) {
  count_ = next_ = 0;
  time_ns_ = time_ns;
}

void OffloadBurst::add(uint32_t i, uint32_t bytes, uint16_t tpid, uint16_t tci) {
  if (bytes < sizeof(VnetHeader)) return;
  Frame frame{slot(i) + sizeof(VnetHeader), bytes - static_cast<uint32_t>(sizeof(VnetHeader)), {}};
  std::memcpy(&frame.vnet, slot(i), sizeof frame.vnet);
  if (tpid != 0 && frame.len >= 12) {
    std::memmove(frame.data - kVlanTagBytes, frame.data, 12);
    store16(frame.data + 8, tpid);
    store16(frame.data + 10, tci);
    frame.data -= kVlanTagBytes;
    frame.len += kVlanTagBytes;
    frame.vnet.csum_start = static_cast<uint16_t>(frame.vnet.csum_start + kVlanTagBytes);
  }
  frames_[count_++] = frame;
}

uint32_t OffloadBurst::take(Packet* out, uint32_t max, PortCounters& counters) {
  uint32_t n = 0, used = 0;
  while (n < max) {
    if (!segmenter_.done()) {
      const uint32_t len = segmenter_.next_len();
      if (used + len > kSegmentBytes) break;
      uint8_t* segment = segments_.get() + used;
      segmenter_.write_next(segment);
      used += len;
      out[n++] = {segment, len, time_ns_};
    } else if (next_ == count_) {
      break;
    } else {
      const Frame& frame = frames_[next_++];
      const bool super_frame = frame.vnet.gso_type != VnetHeader::kGsoNone;
      if (super_frame && segmenter_.begin(frame.vnet, frame.data, frame.len)) continue;
      if (!super_frame && (frame.vnet.flags & VnetHeader::kNeedsChecksum) != 0)
        finish_checksum(frame.vnet, frame.data, frame.len);
      out[n++] = {frame.data, frame.len, time_ns_};
    }
  }
  for (uint32_t i = 0; i < n; i++) counters.received_bytes += out[i].len;
  counters.received += n;
  return n;
}

}  // namespace edgeos
