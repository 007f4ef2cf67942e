// A message as the guest sees it (in its own memory) and what the kernel knows of it (on the kernel's side).
//
// The kernel writes GuestMessage and never believes what it reads back; MessageMeta never enters a guest's memory.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace edgeos {

// Mirrors the kinds of edgeos.h.
enum class MessageKind : uint8_t { packet, open, data, half_closed, closed, datagram, room, timer };

// Two words that are handled in one piece where the machine can.
typedef uint64_t WordPair __attribute__((vector_size(16), aligned(8), may_alias));

struct MessageMeta {
  // flow | kind << 32 | direction << 40 | in port << 48 | stages visited << 56: one word, because it is read back as a whole
  // right after, and a store in pieces would make that wait.
  uint64_t word = 0;
  uint64_t time_ns = 0;

  static MessageMeta make(uint64_t time_ns, uint32_t flow, MessageKind kind, uint8_t direction, uint8_t in_port) {
    return {flow | uint64_t(kind) << 32 | uint64_t{direction} << 40 | uint64_t{in_port} << 48, time_ns};
  }
  MessageMeta onward(uint8_t direction, uint8_t in_port) const {
    const uint64_t kept = (word & 0xff0000ff'ffffffff) + (uint64_t{1} << 56);
    return {kept | uint64_t{direction} << 40 | uint64_t{in_port} << 48, time_ns};
  }
  MessageMeta speaking_of(uint32_t flow, MessageKind kind) const {
    return {(word & 0xffffff00'00000000) | flow | uint64_t(kind) << 32, time_ns};
  }
  uint32_t flow() const { return static_cast<uint32_t>(word); }
  MessageKind kind() const { return static_cast<MessageKind>(word >> 32 & 0xff); }
  uint8_t direction() const { return static_cast<uint8_t>(word >> 40); }
  uint8_t hops() const { return static_cast<uint8_t>(word >> 56); }
};
static_assert(sizeof(MessageMeta) == 16);

// Mirrors edgeos_message in guest/include/edgeos.h; a test compares the two.
struct GuestMessage {
  uint32_t data;
  uint32_t len;
  uint32_t capacity;
  uint8_t kind;
  uint8_t port;
  uint8_t direction;
  uint8_t reserved;
  uint64_t flow;
  uint64_t time_ns;

  // Four whole words, each stored from a register; what lies in them is little-endian, as guests are.
  void set(uint32_t address, uint32_t length, uint32_t room, MessageMeta meta) {
    store(0, address | uint64_t{length} << 32);
    store(1, room_and_kind(room, meta));
    store(2, meta.flow());
    store(3, meta.time_ns);
  }
  // The same for one of many that differ in address, length, flow and time alone.
  void set(uint32_t address, uint32_t length, uint64_t room_and_kind, WordPair flow_and_time) {
    store(0, address | uint64_t{length} << 32);
    store(1, room_and_kind);
    *reinterpret_cast<WordPair*>(&flow) = flow_and_time;
  }
  static uint64_t room_and_kind(uint32_t room, MessageMeta meta) {
    const uint64_t kinds = (meta.word >> 32 & 0xff) | (meta.word >> 48 & 0xff) << 8 | uint64_t{meta.direction()} << 16;
    return room | kinds << 32;
  }

 private:
  void store(size_t word, uint64_t value) { std::memcpy(reinterpret_cast<uint8_t*>(this) + word * 8, &value, 8); }
};
static_assert(sizeof(GuestMessage) == 32 && offsetof(GuestMessage, flow) == 16);
static_assert(std::endian::native == std::endian::little, "x86-64 and aarch64");

inline constexpr uint8_t kForward = 0;
inline constexpr uint8_t kReverse = 1;
inline constexpr uint8_t kUpstream = 2;  // from a connection that the stage has opened itself
inline constexpr uint8_t kDirections = 3;
inline constexpr int32_t kVerdictDrop = -1;
inline constexpr int32_t kVerdictBack = -2;
inline constexpr int32_t kVerdictDone = -3;

}  // namespace edgeos
