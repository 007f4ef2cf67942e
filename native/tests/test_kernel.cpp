// Pools and their marks, the states of an FWP, and the layouts that a template refuses.
#include "../kernel/pool.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "../kernel/histogram.hpp"
#include "../kernel/limits.hpp"
#include "check.hpp"
#include "wasm_guest.hpp"

using namespace edgeos;
using namespace edgeos::check;

namespace {

bool refused(const Engine& engine, const Layout& l) {
  try {
    make_template(engine, "", "", l);
    return false;
  } catch (const std::runtime_error&) {
    return true;
  }
}

template <class Change>
void check_refused(const Engine& engine, const char* what, Change change) {
  Layout l = layout();
  change(l);
  if (!refused(engine, l)) fail(__FILE__, __LINE__, std::string("accepted: ") + what);
}

void set_byte(const Fwp& fwp, uint8_t value) { fwp.memory[100] = value; }

#ifndef NDEBUG
// Whether this ends a process of its own by abort().
template <class Action>
bool aborts(Action action) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    std::signal(SIGABRT, SIG_DFL);
    action();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}
#endif

}  // namespace

TEST(layouts_that_are_refused) {
  open_library();
  Engine engine(engine_settings());
  CHECK(!refused(engine, layout()));
  check_refused(engine, "slots 0", [](Layout& l) { l.slots = 0; });
  check_refused(engine, "slots 4", [](Layout& l) { l.slots = 4; });
  check_refused(engine, "slots 63", [](Layout& l) { l.slots = 63; });
  check_refused(engine, "slots 512", [](Layout& l) { l.slots = 512; });
  check_refused(engine, "slot size 0", [](Layout& l) { l.slot_size = 0; });
  check_refused(engine, "slot size 65600", [](Layout& l) { l.slot_size = l.slot_stride = 65600; });
  check_refused(engine, "stride below size", [](Layout& l) { l.slot_stride = l.slot_size - 16; });
  check_refused(engine, "messages misaligned", [](Layout& l) { l.messages += 4; });
  check_refused(engine, "messages beyond", [](Layout& l) { l.messages = (4 << 16) - 8; });
  check_refused(engine, "messages at the top of 32 bits", [](Layout& l) { l.messages = 0xfffffff8; });
  check_refused(engine, "verdicts misaligned", [](Layout& l) { l.verdicts += 2; });
  check_refused(engine, "verdicts beyond", [](Layout& l) { l.verdicts = (4 << 16) - 4; });
  check_refused(engine, "data misaligned", [](Layout& l) { l.data += 8; });
  check_refused(engine, "data beyond", [](Layout& l) { l.data = (4 << 16) - 256; });
  check_refused(engine, "stride that overflows", [](Layout& l) { l.slot_stride = 0xfffffff0; });
  check_refused(engine, "memory above the engine's", [](Layout& l) { l.memory = 2 << 20; });
  check_refused(engine, "stack beyond", [](Layout& l) { l.stack = (4 << 16) + 16; });
  check_refused(engine, "counter misaligned", [](Layout& l) { l.counters.push_back({"c", 12}); });
  check_refused(engine, "counter beyond", [](Layout& l) { l.counters.push_back({"c", 4 << 16}); });
  check_refused(engine, "too many counters", [](Layout& l) { l.counters.resize(kCountersMax + 1, {"c", 64}); });
}

TEST(code_that_is_not_code_is_refused) {
  open_library();
  Engine engine(engine_settings());
  const auto attempt = [&](const std::vector<uint8_t>& code) {
    try {
      FwpTemplate(engine, "x", code, layout(), 1'000'000);
      CHECK(false);
    } catch (const std::runtime_error&) {
    }
  };
  attempt({});
  attempt({1, 2, 3});
  attempt(module(""));  // not compiled
  std::vector<uint8_t> code = engine.compile(module(""));
  code.resize(code.size() / 2);
  attempt(code);
}

TEST(an_engine_that_cannot_be_is_refused) {
  open_library();
  const auto attempt = [](EngineSettings s) {
    try {
      Engine engine(s);
      CHECK(false);
    } catch (const std::runtime_error&) {
    }
  };
  EngineSettings s = engine_settings();
  s.fwps = 0;
  attempt(s);
  s = engine_settings(1'000'000);  // 4 PiB of address space
  attempt(s);
  s = engine_settings();
  s.memory_max = 1000;
  attempt(s);
}

TEST(a_life_goes_through_the_states_in_order) {
  open_library();
  Engine engine(engine_settings(1));
  const auto tmpl = make_template(engine, "", "(data (i32.const 100) \"\\07\")");
  Fwp fwp(*tmpl);
  CHECK(fwp.state() == FwpState::empty);
  for (int life = 0; life < 20; life++) {
    CHECK(fwp.instantiate());
    CHECK(fwp.state() == FwpState::ready);
    CHECK_EQ(fwp.memory[100], 7);  // the checkpoint
    CHECK_EQ(fwp.memory[200'000], 0);
    fwp.activate(nullptr, 3);
    CHECK(fwp.state() == FwpState::active);
    CHECK_EQ(fwp.stage, 3);
    set_byte(fwp, 99);
    fwp.memory[200'000] = 99;
    fwp.retire();
    CHECK(fwp.state() == FwpState::dirty);
    if (life % 5 == 4) {
      fwp.destroy();
      CHECK(fwp.state() == FwpState::empty);
    }
  }
}

#if !defined(NDEBUG) && !defined(__SANITIZE_THREAD__)
TEST(illegal_transitions_abort) {
  open_library();
  Engine engine(engine_settings(1));
  const auto tmpl = make_template(engine);
  CHECK(aborts([&] { Fwp(*tmpl).activate(nullptr, 0); }));
  CHECK(aborts([&] { Fwp(*tmpl).retire(); }));
  CHECK(aborts([&] {
    Fwp fwp(*tmpl);
    fwp.instantiate();
    fwp.retire();
  }));
  CHECK(aborts([&] {
    Fwp fwp(*tmpl);
    fwp.instantiate();
    fwp.instantiate();
  }));
  CHECK(aborts([&] {
    Fwp fwp(*tmpl);
    fwp.instantiate();
    fwp.activate(nullptr, 0);
    fwp.activate(nullptr, 0);
  }));
  CHECK(aborts([&] {
    Fwp fwp(*tmpl);
    fwp.instantiate();
    fwp.activate(nullptr, 0);
    fwp.instantiate();
  }));
  CHECK(!aborts([] {}));
}
#endif

TEST(a_pool_stays_between_its_marks) {
  open_library();
  Engine engine(engine_settings(16));
  Pool pool(make_template(engine), 3, 6);
  CHECK(pool.maintain(2));
  CHECK_EQ(pool.ready(), 2u);
  while (pool.maintain(1)) {
  }
  CHECK_EQ(pool.ready(), 6u);
  std::vector<Fwp*> taken;
  for (int i = 0; i < 3; i++) taken.push_back(pool.take());
  CHECK(!pool.maintain(100));  // at the low mark: nothing to do yet
  CHECK_EQ(pool.ready(), 3u);
  taken.push_back(pool.take());
  while (pool.maintain(1)) {
  }
  CHECK_EQ(pool.ready(), 6u);
  CHECK_EQ(pool.counters().created, 10u);
  CHECK_EQ(pool.counters().made_on_path, 0u);
  // All come back dirty: the pool keeps as many as its high mark and gives the rest back to the engine.
  for (Fwp* fwp : taken) {
    fwp->activate(nullptr, 0);
    fwp->retire();
    pool.give_back(fwp);
  }
  CHECK_EQ(pool.dirty(), 4u);
  while (pool.maintain(1)) {
  }
  CHECK_EQ(pool.ready(), 6u);
  CHECK_EQ(pool.dirty(), 0u);
}

TEST(a_pool_that_is_empty_makes_one_on_the_path_until_the_engine_has_no_more) {
  open_library();
  Engine engine(engine_settings(5));
  Pool pool(make_template(engine), 0, 2);
  std::vector<Fwp*> taken;
  while (Fwp* fwp = pool.take()) {
    fwp->activate(nullptr, 0);
    taken.push_back(fwp);
  }
  CHECK_EQ(taken.size(), 5u);
  CHECK_EQ(pool.counters().exhausted, 1u);
  CHECK_EQ(pool.counters().made_on_path, 5u);
  set_byte(*taken[2], 42);
  taken[2]->retire();
  pool.give_back(taken[2]);
  Fwp* again = pool.take();  // a dirty one is recycled on the spot
  CHECK(again == taken[2]);
  CHECK(again->state() == FwpState::ready);
  CHECK_EQ(again->memory[100], 0);
  CHECK_EQ(pool.counters().recycled, 1u);
  CHECK(pool.take() == nullptr);
}

TEST(a_grown_memory_is_small_again_after_recycling) {
  open_library();
  for (const bool compact : {false, true}) {
    EngineSettings settings = engine_settings(1);
    settings.compact = compact;
    settings.copy_on_write = !compact;
    Engine engine(settings);
    const auto tmpl = make_template(engine, "(drop (memory.grow (i32.const 8))) (i32.store8 (i32.const 500000) (i32.const 9))");
    Fwp fwp(*tmpl);
    for (int life = 0; life < 5; life++) {
      CHECK(fwp.instantiate());
      CHECK_EQ(fwp.memory_size, 4u << 16);
      wt.wasmtime_context_set_epoch_deadline(fwp.context, 100);
      wasmtime_val_raw_t args[2]{};
      wasm_trap_t* trap = nullptr;
      CHECK(wt.wasmtime_func_call_unchecked(fwp.context, &fwp.burst, args, 2, &trap) == nullptr && trap == nullptr);
      CHECK_EQ(fwp.refresh_memory_size(), 12u << 16);
      CHECK_EQ(fwp.memory[500'000], 9);
      fwp.activate(nullptr, 0);
      fwp.retire();
    }
  }
}

TEST(quantiles_are_within_their_buckets) {
  Histogram h;
  CHECK_EQ(h.quantile(0.5), 0u);
  for (uint64_t v = 1; v <= 100'000; v++) h.add(v);
  for (const double q : {0.01, 0.5, 0.9, 0.99}) {
    const double found = static_cast<double>(h.quantile(q)), exact = q * 100'000;
    CHECK(found >= exact * 0.999 && found <= exact * 1.07);
  }
  h.add(UINT64_MAX);
  CHECK_EQ(h.quantile(1), UINT64_MAX);
  CHECK_EQ(h.max(), UINT64_MAX);
}
