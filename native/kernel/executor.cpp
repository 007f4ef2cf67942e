#include "executor.hpp"

#include <array>
#include <semaphore>
#include <thread>

#include "clock.hpp"
#include "host_calls.hpp"
#include "limits.hpp"
#include "spsc_queue.hpp"
#include "streams.hpp"

namespace edgeos {
namespace {

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
    const uint64_t before_ns = thread_cpu_ns();
    run.result = run_handler(fwp, *run.handler);
    run.cpu_ns = thread_cpu_ns() - before_ns;
    return;
  }
  if (run.stamp) run.started_ns = monotonic_ns();
  enter_run(&run);
  wasmtime_val_raw_t args[2];
  args[0].i64 = run.first;
  args[1].i64 = run.count;
  const uint64_t before_ns = fwp.watched ? thread_cpu_ns() : 0;
  run.result = call_guest(fwp, fwp.burst, args, 2);
  if (fwp.watched) run.cpu_ns = thread_cpu_ns() - before_ns;
  enter_run(nullptr);
}

void reset(Run& run) {
  run.emitted = 0;
  run.emit_refused = 0;
  run.stream_ops = 0;
  run.cut_short.clear();
  run.ended_flows.clear();
  run.stamp = false;
  run.handler = nullptr;
  run.emissions.clear();
  run.bytes.clear();
}

class InlineExecutor final : public Executor {
 public:
  explicit InlineExecutor(const Clock& clock) { run_.clock = &clock; }
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
  DedicatedExecutor(const Clock& clock, std::function<void()> on_start)
      : runs_(runs_with(clock)), thread_([this, on_start = std::move(on_start)] {
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

  static std::array<Run, kRunsInFlight> runs_with(const Clock& clock) {
    std::array<Run, kRunsInFlight> runs;
    for (Run& run : runs) run.clock = &clock;
    return runs;
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

std::unique_ptr<Executor> make_inline_executor(const Clock& clock) { return std::make_unique<InlineExecutor>(clock); }

std::unique_ptr<Executor> make_dedicated_executor(const Clock& clock, std::function<void()> on_start) {
  return std::make_unique<DedicatedExecutor>(clock, std::move(on_start));
}

}  // namespace edgeos
