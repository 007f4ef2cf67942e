#include "lifecycle.hpp"

#include <cstring>
#include <memory>
#include <stdexcept>

#include "clock.hpp"
#include "fwp.hpp"

namespace edgeos {
namespace {

uint32_t since(uint64_t start_ns) { return static_cast<uint32_t>(monotonic_ns() - start_ns); }

void handle_one(Fwp& fwp, uint32_t len) {
  std::memset(fwp.slot(0), 0, len);
  fwp.messages()[0].set(fwp.slot_address(0), len, fwp.slot_size, MessageMeta::make(0, 1, MessageKind::packet, kForward, 0));
  wt.wasmtime_context_set_epoch_deadline(fwp.context, fwp.tmpl().budget_ticks());
  wasmtime_val_raw_t args[2];
  args[0].i64 = 0;
  args[1].i64 = 1;
  wasm_trap_t* trap = nullptr;
  wasmtime_check(wt.wasmtime_func_call_unchecked(fwp.context, &fwp.burst, args, 2, &trap), "the guest failed");
  if (trap == nullptr) return;
  wt.wasm_trap_delete(trap);
  throw std::runtime_error("the guest trapped on a message of zeroes");
}

void make_ready(Fwp& fwp) {
  if (!fwp.instantiate()) throw std::runtime_error("the engine has no room for another FWP");
}

}  // namespace

LifecycleTimes measure_lifecycle(const FwpTemplate& tmpl, uint32_t rounds, uint32_t live, uint32_t len) {
  std::vector<std::unique_ptr<Fwp>> fwps;
  for (uint32_t i = 0; i < live; i++) {  // brings the engine's slots into memory, once
    fwps.push_back(std::make_unique<Fwp>(tmpl));
    make_ready(*fwps.back());
    handle_one(*fwps.back(), len);
  }
  LifecycleTimes times;
  for (uint32_t i = 0; i < rounds; i++) {
    Fwp& fwp = *fwps[i % live];
    fwp.destroy();
    uint64_t start_ns = monotonic_ns();
    make_ready(fwp);
    times.create.push_back(since(start_ns));
    start_ns = monotonic_ns();
    handle_one(fwp, len);
    times.first_call.push_back(since(start_ns));
    fwp.activate(nullptr, 0);
    fwp.retire();
    start_ns = monotonic_ns();
    make_ready(fwp);
    times.recycle.push_back(since(start_ns));
  }
  const uint64_t start_ns = monotonic_ns();
  for (uint32_t i = 0; i < rounds; i++) {
    Fwp& fwp = *fwps[i % live];
    fwp.destroy();
    make_ready(fwp);
    handle_one(fwp, len);
  }
  times.whole_ns = monotonic_ns() - start_ns;
  return times;
}

}  // namespace edgeos
