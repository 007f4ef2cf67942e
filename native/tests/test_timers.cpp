// The timers of an FWP and the queue of a worker, against a plain model.
#include "../kernel/timers.hpp"

#include <map>
#include <random>

#include "../kernel/limits.hpp"
#include "check.hpp"
#include "wasm_guest.hpp"

using namespace edgeos;
using namespace edgeos::check;

TEST(timers_come_out_by_time_and_once) {
  Timers timers;
  CHECK(timers.set(1, 300));
  CHECK(timers.set(2, 100));
  CHECK(timers.set(3, 200));
  CHECK(timers.set(1, 50));
  timers.cancel(3);
  timers.cancel(99);
  uint64_t token = 0;
  CHECK(!timers.take_due(49, token));
  CHECK_EQ(timers.next_ns(), 50u);
  CHECK(timers.take_due(1000, token));
  CHECK_EQ(token, 1u);
  CHECK(timers.take_due(1000, token));
  CHECK_EQ(token, 2u);
  CHECK(!timers.take_due(UINT64_MAX, token));
  CHECK_EQ(timers.next_ns(), UINT64_MAX);
}

TEST(there_are_so_many_and_no_more) {
  Timers timers;
  for (uint32_t i = 0; i < kTimersMax; i++) CHECK(timers.set(i, i));
  CHECK(!timers.set(kTimersMax, 1));
  CHECK(timers.set(0, 7));
  timers.cancel(1);
  CHECK(timers.set(kTimersMax, 1));
}

TEST(a_place_in_the_queue_is_taken_anew_when_it_may_be_wrong) {
  open_library();
  const Engine engine(engine_settings());
  const auto tmpl = make_template(engine);
  Fwp fwp(*tmpl);
  TimerQueue queue;
  const auto place = [&](uint64_t earliest_ns = 0) {
    queue.update(fwp, earliest_ns);
    return !fwp.timers.misplaced();
  };
  CHECK(!fwp.timers.misplaced());
  CHECK(fwp.timers.set(1, 100));
  CHECK(fwp.timers.misplaced());
  CHECK(place());
  fwp.timers.cancel(1);
  CHECK(fwp.timers.misplaced());
  CHECK(place());
  CHECK(fwp.timers.set(1, 100));
  CHECK(!place(150));  // it waits for room: when there is some, it need not
  CHECK(place());
  CHECK_EQ(queue.pop_due(100), &fwp);
  CHECK(fwp.timers.misplaced());
  CHECK(place());
  uint64_t token = 0;
  CHECK(fwp.timers.take_due(100, token));
  CHECK(fwp.timers.misplaced());
  CHECK(place());
  CHECK(fwp.timers.set(1, 100));
  fwp.timers.clear();
  CHECK(!fwp.timers.misplaced());
}

TEST(the_queue_agrees_with_a_model) {
  open_library();
  const Engine engine(engine_settings());
  const auto tmpl = make_template(engine);
  std::vector<std::unique_ptr<Fwp>> fwps;
  for (int i = 0; i < 40; i++) fwps.push_back(std::make_unique<Fwp>(*tmpl));
  TimerQueue queue;
  std::map<Fwp*, uint64_t> model;
  std::mt19937 random(7);
  for (int step = 0; step < 20'000; step++) {
    Fwp& fwp = *fwps[random() % fwps.size()];
    const uint64_t when = random() % 1000;
    switch (random() % 4) {
      case 0:
      case 1:
        fwp.timers.set(0, when);
        queue.update(fwp);
        model[&fwp] = when;
        break;
      case 2:
        fwp.timers.clear();
        queue.update(fwp);
        model.erase(&fwp);
        break;
      default: {
        Fwp* found = queue.pop_due(when);
        uint64_t least = UINT64_MAX;
        for (const auto& [f, due] : model) least = std::min(least, due);
        CHECK_EQ(found != nullptr, least <= when);
        if (found == nullptr) break;
        CHECK_EQ(model.at(found), least);
        found->timers.clear();
        model.erase(found);
      }
    }
    uint64_t least = UINT64_MAX;
    for (const auto& [f, due] : model) least = std::min(least, due);
    CHECK_EQ(queue.next_ns(), least);
  }
  for (auto& fwp : fwps) fwp->timers.clear();
  CHECK_EQ(queue.next_ns(), UINT64_MAX);
}
