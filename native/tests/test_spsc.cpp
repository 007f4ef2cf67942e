// The queue between two threads, and the ring's cursors against std::deque.
#include "../kernel/spsc_queue.hpp"

#include <deque>
#include <random>
#include <thread>

#include "../kernel/fwp.hpp"
#include "check.hpp"

using namespace edgeos;

TEST(two_threads_see_everything_once_and_in_order) {
  struct Item {
    uint64_t number;
    uint64_t twice;  // not atomic: a race here is a missing release or acquire
  };
  constexpr uint64_t kItems = 300'000;
  SpscQueue<Item, 16> queue;
  std::thread producer([&] {
    for (uint64_t n = 0; n < kItems;) {
      if (queue.push(Item{n, n * 2})) n++;
      else std::this_thread::yield();
    }
  });
  uint64_t expected = 0, wrong = 0;
  while (expected < kItems) {
    Item item;
    if (!queue.pop(item)) {
      std::this_thread::yield();
      continue;
    }
    wrong += item.number != expected || item.twice != expected * 2;
    expected++;
  }
  producer.join();
  CHECK_EQ(wrong, 0u);
  CHECK(queue.empty());
}

TEST(pointers_hand_over_what_they_point_to) {
  struct Run {
    uint64_t work = 0;
  };
  Run runs[8];
  SpscQueue<Run*, 16> todo, done;
  std::thread worker([&] {
    for (Run* run = nullptr;;) {
      if (!todo.pop(run)) {
        std::this_thread::yield();
        continue;
      }
      if (run == nullptr) return;
      run->work++;
      done.push(run);
    }
  });
  uint64_t finished = 0;
  for (Run& run : runs) todo.push(&run);
  while (finished < 100'000) {
    Run* run = nullptr;
    if (!done.pop(run)) {
      std::this_thread::yield();
      continue;
    }
    run->work++;
    finished++;
    todo.push(run);
  }
  todo.push(nullptr);
  worker.join();
  uint64_t work = 0;
  for (const Run& run : runs) work += run.work;
  CHECK(work >= 200'000 && work <= 200'008);
}

TEST(queue_like_a_deque) {
  SpscQueue<int, 8> queue;
  std::deque<int> model;
  std::mt19937 random(3);
  for (int i = 0; i < 200'000; i++) {
    if (random() % 2 == 0) {
      const bool accepted = queue.push(i);
      CHECK_EQ(accepted, model.size() < 8);
      if (accepted) model.push_back(i);
    } else {
      int value = -1;
      const bool got = queue.pop(value);
      CHECK_EQ(got, !model.empty());
      if (got) {
        CHECK_EQ(value, model.front());
        model.pop_front();
      }
    }
    CHECK_EQ(queue.empty(), model.empty());
  }
}

TEST(ring_like_a_deque) {
  for (uint32_t slots : {8u, 64u, 256u}) {
    Ring ring;
    ring.mask = slots - 1;
    ring.head = ring.tail = 0xffffff80;  // the free-running cursors wrap around 2^32 soon
    std::vector<uint32_t> memory(slots);
    std::deque<uint32_t> model;
    std::mt19937 random(slots);
    for (uint32_t i = 0; i < 100'000; i++) {
      if (random() % 2 == 0 && ring.size() < slots) {
        memory[ring.index(ring.tail++)] = i;
        model.push_back(i);
      } else if (ring.size() > 0) {
        CHECK_EQ(memory[ring.index(ring.head++)], model.front());
        model.pop_front();
      }
      if (i > 1000 && random() % 4 == 0) {
        ring.restart_if_empty();
        CHECK(!model.empty() || (ring.head == 0 && ring.tail == 0));
      }
      CHECK_EQ(ring.size(), static_cast<uint32_t>(model.size()));
    }
  }
}
