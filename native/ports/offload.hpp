// Turns what a device hands over with a virtio_net_hdr into packets as they would look on a wire: partial checksums are
// finished, TCP and UDP super-frames are cut into segments.
//
// Owner: one live port each; its data-plane thread only. The header and the frame are believed in nothing: a frame that
// its header contradicts is handed out untouched. Memory is allocated once; a super-frame is cut as its segments are
// asked for, so that a tiny gso_size cannot make this hold more than one burst.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "port.hpp"

namespace edgeos {

// struct virtio_net_hdr of the virtio specification, section 5.1.6, without num_buffers; fields in host order.
struct VnetHeader {
  static constexpr uint8_t kNeedsChecksum = 1;
  static constexpr uint8_t kGsoNone = 0, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoUdpL4 = 5, kGsoEcn = 0x80;
  uint8_t flags = 0, gso_type = kGsoNone;
  uint16_t header_len = 0, gso_size = 0, csum_start = 0, csum_offset = 0;
};
static_assert(sizeof(VnetHeader) == 10);

// Finishes a partial checksum in place; false and untouched when the header points outside the frame.
bool finish_checksum(const VnetHeader& vnet, uint8_t* frame, uint32_t len);

// Where the layers of an IP packet lie in its frame, offsets from its first byte.
struct FrameLayers {
  uint32_t ip = 0, l4 = 0, end = 0;  // end: of the IP packet; a frame may be padded
  uint8_t protocol = 0;
  bool ipv6 = false;
};

// False for what is not IP, for fragments, and when lengths contradict each other.
bool find_layers(const uint8_t* frame, uint32_t len, FrameLayers& layers);

// Finishes a partial TCP or UDP checksum in place, without a header that tells of it: it is one when the field holds the
// pseudo header's sum. Of a packet whose right checksum happens to be that sum this changes nothing.
void complete_checksum(uint8_t* frame, uint32_t len);

// Cuts one super-frame into segments. It keeps a view of the frame until done().
class Segmenter {
 public:
  // False when this is no super-frame that can be cut: unknown kind, gso_size 0, or lengths that contradict each other.
  bool begin(const VnetHeader& vnet, const uint8_t* frame, uint32_t len);

  bool done() const { return at_ == len_; }
  uint32_t next_len() const;
  void write_next(uint8_t* out);  // writes next_len() bytes

 private:
  const uint8_t* frame_ = nullptr;
  uint32_t len_ = 0, at_ = 0, gso_size_ = 0;  // at_: first payload byte that no segment carries yet
  FrameLayers layers_;
  uint32_t payload_ = 0;   // offset into the frame
  uint16_t segments_ = 0;  // cut so far
};

// The frames of one receive call to the device, and the packets made from them.
class OffloadBurst {
 public:
  static constexpr uint32_t kFramesMax = 32;
  // The largest IP packet behind an Ethernet header and two VLAN tags.
  static constexpr uint32_t kFrameBytesMax = 65535 + 14 + 2 * 4;
  static constexpr uint32_t kReadBytesMax = sizeof(VnetHeader) + kFrameBytesMax;

  OffloadBurst();

  // Where the device writes header and frame of slot `i`: kReadBytesMax bytes. Only when empty().
  uint8_t* slot(uint32_t i) { return slots_.get() + size_t{i} * kSlotBytes + kHeadroom - sizeof(VnetHeader); }

  void begin(uint64_t time_ns);
  uint64_t time_ns() const { return time_ns_; }

  // Takes slot `i`, into which `bytes` were written. `tpid` and `tci`: a VLAN tag to put back, none when `tpid` is 0.
  void add(uint32_t i, uint32_t bytes, uint16_t tpid = 0, uint16_t tci = 0);

  bool empty() const { return next_ == count_ && segmenter_.done(); }

  // Hands out up to `max` packets, which stay valid until the next take() or begin(), and counts them as received.
  uint32_t take(Packet* out, uint32_t max, PortCounters& counters);

 private:
  struct Frame {
    uint8_t* data;
    uint32_t len;
    VnetHeader vnet;
  };
  static constexpr uint32_t kVlanTagBytes = 4;
  static constexpr uint32_t kHeadroom = 16;  // holds the header, and a VLAN tag after the header has been read
  // A whole, odd number of cache lines, so that the heads of the frames do not all fall into the same cache sets.
  static constexpr uint32_t kSlotBytes = 65600;
  static_assert(kSlotBytes >= kHeadroom + kFrameBytesMax && kSlotBytes % 128 == 64);
  // A burst of segments for MTU 1500 takes 48 KiB; the largest single segment must fit too.
  static constexpr uint32_t kSegmentBytes = 2 * kSlotBytes;

  std::unique_ptr<uint8_t[]> slots_, segments_;
  std::array<Frame, kFramesMax> frames_{};
  Segmenter segmenter_;
  uint32_t count_ = 0, next_ = 0;
  uint64_t time_ns_ = 0;
};

}  // namespace edgeos
