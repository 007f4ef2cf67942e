// A message as the guest sees it (in its own memory) and what the kernel knows of it (on the kernel's side).
//
// The kernel writes GuestMessage and never believes what it reads back; MessageMeta never enters a guest's memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeos {

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
};
static_assert(sizeof(GuestMessage) == 32 && offsetof(GuestMessage, flow) == 16);

struct MessageMeta {
  uint64_t time_ns;
  uint32_t flow;
  uint8_t kind;
  uint8_t direction;
  uint8_t port;  // in port of the stage whose ring holds it
  uint8_t hops;
};
static_assert(sizeof(MessageMeta) == 16);

inline constexpr uint8_t kForward = 0;
inline constexpr uint8_t kReverse = 1;
inline constexpr int32_t kVerdictDrop = -1;
inline constexpr int32_t kVerdictBack = -2;

}  // namespace edgeos
