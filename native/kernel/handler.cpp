#include "handler.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "executor.hpp"

namespace edgeos {
namespace {

constexpr std::string_view kExport = "edgeos_access";
constexpr int32_t kUnknown = -1, kNotAllowed = -2, kBadValue = -3;  // and below: minus the bytes of the reason

struct Span {
  uint32_t address;
  uint32_t size;
};

// The longest row of slots without a message.
Span free_slots(const Fwp& fwp) {
  const uint32_t slots = fwp.ring.mask + 1, used = fwp.ring.size();
  const uint32_t head = fwp.ring.index(fwp.ring.head), tail = fwp.ring.index(fwp.ring.tail);
  uint32_t first = used == 0 ? 0 : tail;
  uint32_t count = used == slots ? 0 : used == 0 ? slots : tail > head ? slots - tail : head - tail;
  if (used > 0 && tail > head && head > count) {
    first = 0;
    count = head;
  }
  return {fwp.slot_address(first), count * (fwp.slot_address(1) - fwp.slot_address(0))};
}

void take_answer(const Fwp& fwp, HandlerCall& call, int32_t answer, Span room) {
  const int64_t len = answer <= kBadValue ? int64_t{kBadValue} - answer : answer;
  call.value.clear();
  call.status = answer >= 0 ? HandlerStatus::done
                : answer == kUnknown ? HandlerStatus::unknown
                : answer == kNotAllowed ? HandlerStatus::not_allowed
                                        : HandlerStatus::bad_value;
  if (len > 0) call.value.assign(reinterpret_cast<const char*>(fwp.memory + room.address),
                                 static_cast<size_t>(std::min<int64_t>(len, room.size)));
}

}  // namespace

Kill run_handler(Fwp& fwp, HandlerCall& call) {
  wasmtime_func_t function;
  if (!fwp.find_function(kExport, function)) {
    call.status = HandlerStatus::none;
    return Kill::none;
  }
  const Span span = free_slots(fwp);
  const auto name_len = static_cast<uint32_t>(call.name.size()), len = static_cast<uint32_t>(call.value.size());
  const uint32_t offset = (name_len + 15) / 16 * 16;
  if (call.name.size() > kHandlerNameMax || call.value.size() > kHandlerValueMax || span.size < offset + len) {
    call.status = HandlerStatus::too_large;
    return Kill::none;
  }
  const Span room{span.address + offset, std::min(span.size - offset, kHandlerValueMax)};
  std::memcpy(fwp.memory + span.address, call.name.data(), name_len);
  std::memcpy(fwp.memory + room.address, call.value.data(), len);
  wasmtime_val_raw_t args[6];
  const uint32_t words[6] = {call.write, span.address, name_len, room.address, len, room.size};
  for (size_t i = 0; i < 6; i++) args[i].i64 = words[i];
  const Kill cause = call_guest(fwp, function, args, 6);
  if (cause != Kill::none) {
    call.status = HandlerStatus::killed;
  } else {
    take_answer(fwp, call, args[0].i32, room);
  }
  return cause;
}

}  // namespace edgeos
