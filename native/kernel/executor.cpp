#include "executor.hpp"

#include <array>
#include <semaphore>
#include <thread>

#include "chain.hpp"
#include "clock.hpp"
#include "limits.hpp"
#include "spsc_queue.hpp"

namespace edgeos {
namespace {

thread_local Run* current_run = nullptr;

Kill kill_cause(wasm_trap_t* trap) {
  enum : uint8_t { kStackOverflow = 0, kMemoryOutOfBounds = 1, kInterrupt = 10 };
  uint8_t code = 0xff;
  wt.wasmtime_trap_code(trap, &code);
  wt.wasm_trap_delete(trap);
  switch (code) {
    case kStackOverflow: return Kill::stack;
    case kMemoryOutOfBounds: return Kill::memory;
    case kInterrupt: return Kill::budget;
    default: return Kill::trap;
  }
}

void execute(Run& run) {
  Fwp& fwp = *run.fwp;
  if (run.handler != nullptr) {
    run.result = run_handler(fwp, *run.handler);
    return;
  }
  if (run.stamp) run.started_ns = monotonic_ns();
  current_run = &run;
  wasmtime_val_raw_t args[2];
  args[0].i64 = run.first;
  args[1].i64 = run.count;
  run.result = call_guest(fwp, fwp.burst, args, 2);
  current_run = nullptr;
}

// All arguments come from the guest.
bool emit(Run& run, uint32_t index, int32_t port, uint32_t address, uint32_t len) {
  Fwp& fwp = *run.fwp;
  if (run.emissions.size() >= run.emit_room || len > fwp.slot_size || run.bytes.size() + len > kEmitBytesMax) return false;
  const uint64_t end = uint64_t{address} + len;
  if (end > fwp.memory_size && end > fwp.refresh_memory_size()) return false;
  const uint32_t verdict = static_cast<uint32_t>(port) + 2;
  if (verdict >= kRoutes || port == kVerdictDrop) return false;
  const uint8_t direction = fwp.meta[index].direction();
  if (fwp.owner->chain->spec().stages[fwp.stage].routes[direction][verdict].kind == Destination::Kind::none) return false;
  run.emissions.push_back(Emission{index, port, static_cast<uint32_t>(run.bytes.size()), len});
  run.bytes.insert(run.bytes.end(), fwp.memory + address, fwp.memory + end);
  return true;
}

wasm_trap_t* host_emit(void*, wasmtime_caller_t*, wasmtime_val_raw_t* args, size_t) {
  Run* run = current_run;
  const auto index = static_cast<uint32_t>(args[0].i32);
  bool accepted = false;
  if (run != nullptr) {
    // The index only orders the emission among the burst's messages, so a wrong one is brought into range.
    const uint32_t least = run->emissions.empty() ? run->first : run->emissions.back().index;
    const uint32_t last = run->first + run->count - 1;
    const uint32_t at = index < least ? least : index > last ? last : index;
    accepted = emit(*run, at, args[1].i32, static_cast<uint32_t>(args[2].i32), static_cast<uint32_t>(args[3].i32));
    run->emit_refused += !accepted;
  }
  args[0].i64 = static_cast<uint32_t>(accepted ? 0 : -1);
  return nullptr;
}

void reset(Run& run) {
  run.emit_refused = 0;
  run.stamp = false;
  run.handler = nullptr;
  run.emissions.clear();
  run.bytes.clear();
}

class InlineExecutor final : public Executor {
 public:
  bool has_room() const override { return !done_; }
  Run& next_run() override { return run_; }
  void submit(Run& run) override {
    execute(run);
    done_ = true;
  }
  Run* completed() override { return done_ ? &run_ : nullptr; }
  void release(Run& run) override {
    reset(run);
    done_ = false;
  }
  uint32_t outstanding() const override { return done_ ? 1 : 0; }

 private:
  Run run_;
  bool done_ = false;
};

class DedicatedExecutor final : public Executor {
 public:
  explicit DedicatedExecutor(std::function<void()> on_start)
      : thread_([this, on_start = std::move(on_start)] {
          on_start();
          work();
        }) {}
  ~DedicatedExecutor() override {
    todo_.push(nullptr);
    wake();
    thread_.join();
  }

  bool has_room() const override { return outstanding_ < kRunsInFlight; }
  Run& next_run() override { return runs_[next_ % kRunsInFlight]; }
  void submit(Run& run) override {
    next_++;
    outstanding_++;
    todo_.push(&run);
    wake();
  }
  Run* completed() override {
    Run* run = nullptr;
    return done_.pop(run) ? run : nullptr;
  }
  void release(Run& run) override {
    reset(run);
    outstanding_--;
  }
  uint32_t outstanding() const override { return outstanding_; }

 private:
  void work() {
    uint64_t idle_since = 0;
    for (;;) {
      Run* run = nullptr;
      if (todo_.pop(run)) {
        if (run == nullptr) return;
        execute(*run);
        done_.push(run);
        idle_since = 0;
      } else if (idle_since == 0) {
        idle_since = monotonic_ns();
      } else if (monotonic_ns() - idle_since > kSpinNs) {
        sleep();
        idle_since = 0;
      } else {
        std::this_thread::yield();  // the mover may need this core
      }
    }
  }

  // The two exchanges order the queue against the flag: either sleep() sees what was pushed, or wake() sees the sleeper.
  void sleep() {
    asleep_.exchange(true, std::memory_order_seq_cst);
    const bool awake = !todo_.empty() && asleep_.exchange(false, std::memory_order_seq_cst);
    if (!awake) alarm_.acquire();
  }
  void wake() {
    if (asleep_.exchange(false, std::memory_order_seq_cst)) alarm_.release();
  }

  std::array<Run, kRunsInFlight> runs_;
  uint32_t next_ = 0;
  uint32_t outstanding_ = 0;
  SpscQueue<Run*, kRunsInFlight * 2> todo_;
  SpscQueue<Run*, kRunsInFlight * 2> done_;
  std::atomic<bool> asleep_{false};
  std::binary_semaphore alarm_{0};
  std::thread thread_;
};

}  // namespace

Kill call_guest(Fwp& fwp, const wasmtime_func_t& function, wasmtime_val_raw_t* args, size_t count) {
  wt.wasmtime_context_set_epoch_deadline(fwp.context, fwp.tmpl().budget_ticks());
  wasm_trap_t* trap = nullptr;
  wasmtime_error_t* error = wt.wasmtime_func_call_unchecked(fwp.context, &function, args, count, &trap);
  if (error != nullptr) {
    wt.wasmtime_error_delete(error);
    return Kill::trap;
  }
  return trap != nullptr ? kill_cause(trap) : Kill::none;
}

std::unique_ptr<Executor> make_inline_executor() { return std::make_unique<InlineExecutor>(); }

std::unique_ptr<Executor> make_dedicated_executor(std::function<void()> on_start) {
  return std::make_unique<DedicatedExecutor>(std::move(on_start));
}

void define_host_calls(wasmtime_linker_t* linker) {
  wasm_valtype_t* parameters[4];
  for (auto& p : parameters) p = wt.wasm_valtype_new(kValI32);
  wasm_valtype_t* result = wt.wasm_valtype_new(kValI32);
  wasm_valtype_vec_t parameter_types, result_types;
  wt.wasm_valtype_vec_new(&parameter_types, 4, parameters);
  wt.wasm_valtype_vec_new(&result_types, 1, &result);
  wasm_functype_t* type = wt.wasm_functype_new(&parameter_types, &result_types);
  wasmtime_error_t* error =
      wt.wasmtime_linker_define_func_unchecked(linker, "edgeos", 6, "emit", 4, type, host_emit, nullptr, nullptr);
  wt.wasm_functype_delete(type);
  wasmtime_check(error, "cannot define the host call edgeos.emit");
}

}  // namespace edgeos
