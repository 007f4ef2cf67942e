// Both executors with real guests: results, their order, sleeping and waking, and what guests are killed for.
#include "../kernel/executor.hpp"

#include <time.h>

#include <thread>

#include "../kernel/chain.hpp"
#include "../kernel/clock.hpp"
#include "../kernel/ticker.hpp"
#include "check.hpp"
#include "wasm_guest.hpp"

using namespace edgeos;
using namespace edgeos::check;

namespace {

// Counts its bursts at address 64 and sums up the messages at 68.
const std::string kCount =
    "(i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))"
    "(i32.store (i32.const 68) (i32.add (i32.load (i32.const 68)) (local.get $count)))";

const Clock real_clock;

struct Rig {
  Engine engine;
  Ticker ticker;
  std::unique_ptr<FwpTemplate> tmpl;
  std::vector<std::unique_ptr<Fwp>> fwps;
  std::unique_ptr<Executor> executor;

  Rig(bool dedicated, const std::string& burst, const std::string& fields = "", uint32_t count = 4)
      : engine(engine_settings(count + 1)), ticker(engine), tmpl(make_template(engine, burst, fields)) {
    for (uint32_t i = 0; i < count; i++) {
      fwps.push_back(std::make_unique<Fwp>(*tmpl));
      std::string why;
      if (!fwps.back()->instantiate(&why)) throw std::runtime_error(why);
    }
    if (dedicated) {
      executor = make_dedicated_executor(real_clock, [this] { ticker.watch_this_thread(); });
    } else {
      executor = make_inline_executor(real_clock);
      ticker.watch_this_thread();
    }
  }
  ~Rig() {
    executor.reset();
    ticker.stop();
  }
  void submit(Fwp& fwp, uint32_t first = 0, uint32_t count = 1) {
    Run& run = executor->next_run();
    run.fwp = &fwp;
    run.first = first;
    run.count = count;
    run.emit_room = 0;
    executor->submit(run);
  }
  Run& wait() {
    for (;;)
      if (Run* run = executor->completed()) return *run;
  }
  uint32_t word(const Fwp& fwp, uint32_t address) const {
    uint32_t value;
    std::memcpy(&value, fwp.memory + address, sizeof value);
    return value;
  }
};

void nap() {
  const timespec time{0, 200'000};  // more than the executor spins before it sleeps
  nanosleep(&time, nullptr);
}

Kill cause(bool dedicated, const std::string& burst, const std::string& fields = "") {
  Rig rig(dedicated, burst, fields, 1);
  rig.submit(*rig.fwps[0]);
  Run& run = rig.wait();
  const Kill result = run.result;
  rig.executor->release(run);
  return result;
}

void causes(bool dedicated) {
  CHECK(cause(dedicated, "") == Kill::none);
  CHECK(cause(dedicated, "(loop $l (br $l))") == Kill::budget);
  CHECK(cause(dedicated, "unreachable") == Kill::trap);
  CHECK(cause(dedicated, "(drop (i32.load (i32.const -4)))") == Kill::memory);
  CHECK(cause(dedicated, "(drop (i32.div_u (i32.const 1) (i32.load (i32.const 64))))") == Kill::trap);
  CHECK(cause(dedicated, "(call $f)", "(func $f (call $f) (call $f))") == Kill::stack);
  CHECK(cause(dedicated, "(call_indirect (i32.const 5))", "(table 6 funcref)") == Kill::trap);
}

}  // namespace

TEST(causes_of_death_inline) { open_library(), causes(false); }
TEST(causes_of_death_dedicated) { open_library(), causes(true); }

TEST(runs_complete_in_the_order_of_submission) {
  open_library();
  Rig rig(true, kCount);
  uint32_t submitted = 0, completed = 0;
  std::vector<Fwp*> expected;
  while (completed < 4000) {
    while (submitted < 4000 && rig.executor->has_room()) {
      Fwp& fwp = *rig.fwps[submitted * 7 % 4];
      rig.submit(fwp, 0, 1 + submitted % 3);
      expected.push_back(&fwp);
      submitted++;
    }
    if (Run* run = rig.executor->completed()) {
      if (run->fwp != expected[completed] || run->result != Kill::none) CHECK(false);
      rig.executor->release(*run);
      completed++;
    }
  }
  CHECK_EQ(rig.executor->outstanding(), 0u);
  uint32_t bursts = 0;
  for (const auto& fwp : rig.fwps) bursts += rig.word(*fwp, 64);
  CHECK_EQ(bursts, 4000u);
}

TEST(an_executor_that_fell_asleep_wakes_up) {
  open_library();
  Rig rig(true, kCount, "", 1);
  for (uint32_t i = 1; i <= 300; i++) {
    if (i % 3 != 0) nap();
    rig.submit(*rig.fwps[0], 0, 2);
    rig.executor->release(rig.wait());
    if (rig.word(*rig.fwps[0], 64) != i) CHECK(false);
  }
  CHECK_EQ(rig.word(*rig.fwps[0], 68), 600u);
}

TEST(started_and_stopped_many_times) {
  open_library();
  Engine engine(engine_settings());
  const auto tmpl = make_template(engine, kCount);
  Fwp fwp(*tmpl);
  CHECK(fwp.instantiate());
  for (int i = 0; i < 100; i++) {
    const auto executor = make_dedicated_executor(real_clock, [] {});
    if (i % 4 == 1) nap();
    if (i % 2 == 0) continue;
    Run& run = executor->next_run();
    run.fwp = &fwp;
    run.count = 1;
    executor->submit(run);
    while (executor->completed() == nullptr) {
    }
    executor->release(run);
  }
  uint32_t bursts;
  std::memcpy(&bursts, fwp.memory + 64, 4);
  CHECK_EQ(bursts, 50u);
}

TEST(no_more_runs_than_there_is_room_for) {
  open_library();
  Rig rig(true, "(loop $l (br_if $l (i32.eqz (i32.const 0))))", "", 4);
  uint32_t submitted = 0;
  for (; rig.executor->has_room(); submitted++) rig.submit(*rig.fwps[submitted % 4]);
  CHECK_EQ(submitted, kRunsInFlight);
  CHECK_EQ(rig.executor->outstanding(), kRunsInFlight);
  for (uint32_t i = 0; i < submitted; i++) {
    Run& run = rig.wait();
    CHECK(run.result == Kill::budget);
    rig.executor->release(run);
  }
}

// Waiting for its turn, or for its core, costs a guest nothing: its budget is CPU time.
TEST(a_budget_is_cpu_time_and_is_new_for_each_burst) {
  open_library();
  for (const bool dedicated : {false, true}) {
    // About a millisecond of work each time, 5 ms of budget.
    Rig rig(dedicated, "(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))"
                       "(br_if $l (i32.lt_u (local.get $i) (i32.const 300000))))", "", 1);
    for (int i = 0; i < 60; i++) {
      rig.submit(*rig.fwps[0]);
      Run& run = rig.wait();
      if (run.result != Kill::none) CHECK(false);
      rig.executor->release(run);
    }
  }
}

TEST(emit_outside_a_run_of_its_own_is_refused) {
  open_library();
  // emit_room is 0: every emit is refused, and counted.
  Rig rig(true, "(i32.store (i32.const 64) (call $emit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)))");
  rig.submit(*rig.fwps[0]);
  Run& run = rig.wait();
  CHECK_EQ(run.emit_refused, 1u);
  CHECK(run.emissions.empty());
  CHECK_EQ(rig.word(*rig.fwps[0], 64), 0xffffffffu);
  rig.executor->release(run);
}
