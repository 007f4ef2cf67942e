#include "offload.hpp"

#include <time.h>

#include <algorithm>
#include <cstring>

#include "checksum.hpp"

namespace edgeos {
namespace {

constexpr uint8_t kTcp = 6, kUdp = 17, kHopByHop = 0, kRouting = 43, kFragment = 44, kDestination = 60;
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

bool find_ipv4(const uint8_t* frame, uint32_t len, FrameLayers& layers) {
  const uint8_t* ip = frame + layers.ip;
  if (len < layers.ip + 20 || ip[0] >> 4 != 4) return false;
  const uint32_t header = (ip[0] & 15) * 4u, total = load16(ip + 2);
  const bool fragment = (load16(ip + 6) & 0x3fff) != 0;
  if (header < 20 || fragment || total < header || total > len - layers.ip) return false;
  layers.ipv6 = false;
  layers.protocol = ip[9];
  layers.l4 = layers.ip + header;
  layers.end = layers.ip + total;
  return true;
}

bool find_ipv6(const uint8_t* frame, uint32_t len, FrameLayers& layers) {
  const uint8_t* ip = frame + layers.ip;
  if (len < layers.ip + 40 || ip[0] >> 4 != 6 || load16(ip + 4) > len - layers.ip - 40) return false;
  layers.ipv6 = true;
  layers.protocol = ip[6];
  layers.l4 = layers.ip + 40;
  layers.end = layers.l4 + load16(ip + 4);
  while (layers.protocol == kHopByHop || layers.protocol == kRouting || layers.protocol == kDestination) {
    const uint8_t* extension = frame + layers.l4;
    if (layers.end < layers.l4 + 8) return false;
    if (layers.protocol == kRouting && extension[3] != 0) return false;  // the checksum is for an address further on
    layers.protocol = extension[0];
    layers.l4 += (extension[1] + 1u) * 8;
  }
  return layers.protocol != kFragment && layers.l4 <= layers.end;
}

uint64_t pseudo_sum(const uint8_t* frame, const FrameLayers& layers, uint32_t l4_len) {
  const uint8_t* ip = frame + layers.ip;
  return checksum_pseudo_header(ip + (layers.ipv6 ? 8 : 12), layers.ipv6 ? 32 : 8, layers.protocol, l4_len);
}

}  // namespace

bool find_layers(const uint8_t* frame, uint32_t len, FrameLayers& layers) {
  uint32_t type = 12;
  if (len < type + 2) return false;
  for (uint32_t tags = 0; tags < kVlanTagsMax && is_vlan(load16(frame + type)); tags++) {
    type += 4;
    if (len < type + 2) return false;
  }
  layers.ip = type + 2;
  if (load16(frame + type) == 0x0800) return find_ipv4(frame, len, layers);
  return load16(frame + type) == 0x86dd && find_ipv6(frame, len, layers);
}

void complete_checksum(uint8_t* frame, uint32_t len) {
  FrameLayers layers;
  if (!find_layers(frame, len, layers) || (layers.protocol != kTcp && layers.protocol != kUdp)) return;
  const uint32_t l4_len = layers.end - layers.l4, field = layers.protocol == kTcp ? 16 : 6;
  if (l4_len < (layers.protocol == kTcp ? 20u : 8u)) return;
  uint8_t* l4 = frame + layers.l4;
  uint16_t found;
  std::memcpy(&found, l4 + field, sizeof found);
  // The field holds the pseudo header's sum, which so enters the total.
  if (found == checksum_fold(pseudo_sum(frame, layers, l4_len))) checksum_store_l4(l4 + field, checksum_add(0, l4, l4_len));
}

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
  if (gso_size_ == 0 || !find_layers(frame, len, layers_) || layers_.end != len) return false;
  const uint8_t kind = vnet.gso_type & static_cast<uint8_t>(~VnetHeader::kGsoEcn);
  if (kind == VnetHeader::kGsoUdpL4) {
    if (layers_.protocol != kUdp) return false;
    payload_ = layers_.l4 + 8;
  } else {
    const uint8_t expected = layers_.ipv6 ? VnetHeader::kGsoTcp6 : VnetHeader::kGsoTcp4;
    if (layers_.protocol != kTcp || kind != expected || layers_.l4 + 20 > len) return false;
    const uint32_t header = (frame[layers_.l4 + 12] >> 4) * 4u;
    if (header < 20) return false;
    payload_ = layers_.l4 + header;
  }
  if (payload_ >= len || payload_ > kHeaderBytesMax) return false;
  at_ = payload_;
  return true;
}

uint32_t Segmenter::next_len() const { return payload_ + std::min(gso_size_, len_ - at_); }

void Segmenter::write_next(uint8_t* out) {
  const uint32_t len = next_len(), piece = len - payload_;
  const bool first = at_ == payload_, last = at_ + piece == len_;
  std::memcpy(out, frame_, payload_);
  std::memcpy(out + payload_, frame_ + at_, piece);

  uint8_t* ip = out + layers_.ip;
  uint8_t* l4 = out + layers_.l4;
  if (layers_.ipv6) {
    store16(ip + 4, len - layers_.ip - 40);
  } else {
    store16(ip + 2, len - layers_.ip);
    store16(ip + 4, load16(ip + 4) + uint32_t{segments_});
    store16(ip + 10, 0);
    checksum_store(ip + 10, checksum_add(0, ip, layers_.l4 - layers_.ip));
  }
  uint8_t* checksum = l4 + (layers_.protocol == kTcp ? 16 : 6);
  if (layers_.protocol == kTcp) {
    store32(l4 + 4, load32(l4 + 4) + (at_ - payload_));
    if (!first) l4[13] &= static_cast<uint8_t>(~kCwr);
    if (!last) l4[13] &= static_cast<uint8_t>(~(kFin | kPsh));
  } else {
    store16(l4 + 4, len - layers_.l4);
  }
  store16(checksum, 0);
  const uint64_t pseudo = pseudo_sum(out, layers_, len - layers_.l4);
  checksum_store_l4(checksum, checksum_add(pseudo, l4, len - layers_.l4));
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
