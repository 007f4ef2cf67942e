#include "host_calls.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <vector>

#include "chain.hpp"
#include "clock.hpp"
#include "executor.hpp"
#include "limits.hpp"
#include "streams.hpp"
#include "timers.hpp"

namespace edgeos {
namespace {

constexpr uint64_t kNever = UINT64_MAX;  // a delay that ends a timer

thread_local Run* current_run = nullptr;

// The guest's bytes from `address` on; nullptr when they are not all in its memory.
uint8_t* range(Fwp& fwp, uint32_t address, uint32_t len) {
  const uint64_t end = uint64_t{address} + len;
  if (end > fwp.memory_size && end > fwp.refresh_memory_size()) return nullptr;
  return fwp.memory + address;
}

void answer(wasmtime_val_raw_t* results, bool accepted) { results[0].i64 = static_cast<uint32_t>(accepted ? 0 : -1); }

bool emit(Run& run, uint32_t index, int32_t port, uint32_t address, uint32_t len) {
  Fwp& fwp = *run.fwp;
  if (run.emitted >= run.emit_room || len > fwp.slot_size || run.bytes.size() + len > kEmitBytesMax) return false;
  const uint8_t* bytes = range(fwp, address, len);
  if (bytes == nullptr) return false;
  const uint32_t verdict = static_cast<uint32_t>(port) + 2;
  if (verdict >= kRoutes || port == kVerdictDrop) return false;
  const uint8_t direction = fwp.meta[index].direction();
  if (fwp.owner->chain->spec().stages[fwp.stage].routes[direction][verdict].kind == Destination::Kind::none) return false;
  run.emitted++;
  run.emissions.push_back(Emission{index, port, static_cast<uint32_t>(run.bytes.size()), len});
  run.bytes.insert(run.bytes.end(), bytes, bytes + len);
  return true;
}

// The index only orders what is sent among the burst's messages, so a wrong one is brought into range.
uint32_t in_range(const Run& run, uint32_t index) {
  const uint32_t least = run.emissions.empty() ? run.first : run.emissions.back().index;
  const uint32_t last = run.first + run.count - 1;
  return index < least ? least : index > last ? last : index;
}

wasm_trap_t* host_emit(void*, wasmtime_caller_t*, wasmtime_val_raw_t* args, size_t) {
  Run* run = current_run;
  const auto index = static_cast<uint32_t>(args[0].i32);
  bool accepted = false;
  if (run != nullptr) {
    accepted = emit(*run, in_range(*run, index), args[1].i32, static_cast<uint32_t>(args[2].i32),
                    static_cast<uint32_t>(args[3].i32));
    run->emit_refused += !accepted;
  }
  answer(args, accepted);
  return nullptr;
}

// A flow of packets is over: kept for when the burst has been dealt with, which finds out whether there is such a flow. Where
// the burst has more of its messages behind this one, they come first and the flow goes on.
int32_t end_flow(Run& run, uint32_t index, uint64_t flow) {
  const Fwp& fwp = *run.fwp;
  ChainInstance& instance = *fwp.owner;
  const bool may = instance.chain->ends_flows() && flow != 0 && flow <= instance.last_flow();
  if (!may || run.stream_ops >= kStreamOpsMax) return -1;
  for (uint32_t slot = index + 1; slot < run.first + run.count; slot++)
    if (fwp.meta[slot].flow() == flow) return 0;
  run.stream_ops++;
  run.ended_flows.push_back(static_cast<uint32_t>(flow));
  return 0;
}

wasm_trap_t* host_stream(void*, wasmtime_caller_t*, wasmtime_val_raw_t* args, size_t) {
  Run* run = current_run;
  int32_t result = -1;
  if (run != nullptr) {
    const uint32_t index = in_range(*run, static_cast<uint32_t>(args[0].i32));
    const auto flow = static_cast<uint64_t>(args[1].i64);
    const bool closes = args[2].i32 == kVerdictBack && args[3].i32 == int32_t(MessageKind::closed);
    if (closes && (run->streams == nullptr || !run->streams->knows(*run, flow))) {
      result = end_flow(*run, index, flow);
    } else if (run->streams != nullptr) {
      result = run->streams->call_stream(*run, index, flow, args[2].i32, args[3].i32, static_cast<uint32_t>(args[4].i32),
                                         static_cast<uint32_t>(args[5].i32));
    }
  }
  args[0].i64 = static_cast<uint32_t>(result);
  return nullptr;
}

wasm_trap_t* host_connect(void*, wasmtime_caller_t*, wasmtime_val_raw_t* args, size_t) {
  Run* run = current_run;
  const bool can = run != nullptr && run->streams != nullptr;
  args[0].i64 = can ? run->streams->call_connect(*run, static_cast<uint32_t>(args[0].i32)) : -1;
  return nullptr;
}

wasm_trap_t* host_timer(void*, wasmtime_caller_t*, wasmtime_val_raw_t* args, size_t) {
  const auto delay_ns = static_cast<uint64_t>(args[0].i64), token = static_cast<uint64_t>(args[1].i64);
  Run* run = current_run;
  bool accepted = run != nullptr;
  if (accepted && delay_ns == kNever) {
    run->fwp->timers.cancel(token);
  } else if (accepted) {
    const uint64_t now_ns = run->clock->now_ns();
    accepted = run->fwp->timers.set(token, now_ns + std::min(delay_ns, kNever - 1 - now_ns));
  }
  answer(args, accepted);
  return nullptr;
}

wasm_trap_t* host_clock(void*, wasmtime_caller_t*, wasmtime_val_raw_t* args, size_t) {
  args[0].i64 = static_cast<int64_t>(wall_clock_ns());
  return nullptr;
}

// Straight from the system into the guest: nothing is kept from which another client's bytes could be told.
bool fill_random(uint8_t* to, uint32_t len) {
  while (len > 0) {
    const ssize_t got = getrandom(to, len, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    len -= static_cast<uint32_t>(got);
  }
  return true;
}

wasm_trap_t* host_random(void*, wasmtime_caller_t*, wasmtime_val_raw_t* args, size_t) {
  const auto address = static_cast<uint32_t>(args[0].i32), len = static_cast<uint32_t>(args[1].i32);
  uint8_t* to = current_run == nullptr || len > kRandomMax ? nullptr : range(*current_run->fwp, address, len);
  answer(args, to != nullptr && fill_random(to, len));
  return nullptr;
}

wasm_valtype_vec_t types(std::string_view letters) {
  std::vector<wasm_valtype_t*> all;
  for (const char letter : letters) all.push_back(wt.wasm_valtype_new(letter == 'I' ? kValI64 : kValI32));
  wasm_valtype_vec_t vec;
  wt.wasm_valtype_vec_new(&vec, all.size(), all.data());
  return vec;
}

// Types are written one letter a value: i for i32, I for i64.
void define(wasmtime_linker_t* linker, std::string_view name, std::string_view parameters, std::string_view results,
            wasmtime_func_unchecked_callback_t callback) {
  wasm_valtype_vec_t parameter_types = types(parameters), result_types = types(results);
  wasm_functype_t* type = wt.wasm_functype_new(&parameter_types, &result_types);
  wasmtime_error_t* error = wt.wasmtime_linker_define_func_unchecked(linker, "edgeos", 6, name.data(), name.size(), type,
                                                                     callback, nullptr, nullptr);
  wt.wasm_functype_delete(type);
  wasmtime_check(error, "cannot define a host call");
}

}  // namespace

void enter_run(Run* run) { current_run = run; }

void define_host_calls(wasmtime_linker_t* linker, const Grants& grants) {
  define(linker, "emit", "iiii", "i", host_emit);
  define(linker, "stream", "iIiiii", "i", host_stream);
  if (!grants.connects.empty()) define(linker, "connect", "i", "I", host_connect);
  if (grants.timer) define(linker, "timer", "II", "i", host_timer);
  if (grants.clock) define(linker, "clock", "", "I", host_clock);
  if (grants.random) define(linker, "random", "ii", "i", host_random);
}

}  // namespace edgeos
