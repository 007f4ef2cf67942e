// Parking: all of an FWP's state comes back, to its owner alone, and nobody else meets any of it; what it takes is bounded.
#include "../kernel/parking.hpp"

#include <cstring>
#include <random>

#include "../kernel/timers.hpp"
#include "check.hpp"
#include "wasm_guest.hpp"

using namespace edgeos;
using namespace edgeos::check;

namespace {

constexpr uint32_t kFree = 20'000 + 8192;  // behind the slots of check::layout()
constexpr uint64_t kPage = 65536;

// Two mutable globals, exported as checkpoints export them, and a memory of which a part is not zero.
constexpr const char* kFields =
    "(global (mut i32) (i32.const 4096)) (global (mut i64) (i64.const 7)) (global (mut v128) (v128.const i32x4 1 2 3 4))"
    "(data (i32.const 30000) \"as it began\")";
constexpr const char* kBehind =
    "(export \"global 0\" (global 0)) (export \"global 1\" (global 1)) (export \"global 2\" (global 2))";

struct Lot {
  Engine engine;
  Pool pool;
  TimerQueue timers;
  Parking parking{timers};
  Chain chain;

  explicit Lot(uint64_t keep_memory = 1 << 20, uint64_t keep_timeout_ns = 0)
      : engine((open_library(), engine_settings(16))), pool(guest(engine), 0, 8), chain(spec(keep_memory, keep_timeout_ns)) {
    pool.make_origin();
  }
  static std::unique_ptr<FwpTemplate> guest(const Engine& engine) {
    const std::vector<uint8_t> code = engine.compile(module("", kFields, kBehind));
    return std::make_unique<FwpTemplate>(engine, "guest", code, with_counter(), 5'000'000);
  }
  static Layout with_counter() {
    Layout l = layout();
    l.counters.push_back({"seen", 29'992});
    return l;
  }
  ChainSpec spec(uint64_t keep_memory, uint64_t keep_timeout_ns) {
    ChainSpec s;
    s.name = "caches";
    s.keep = true;
    s.keep_memory = keep_memory;
    s.keep_timeout_ns = keep_timeout_ns;
    s.stages.emplace_back();
    s.stages[0].pool = &pool;
    return s;
  }
  static FlowKey owner(uint64_t client) {
    FlowKey key{};
    key.a = {client, 0};
    return key;
  }
  void come(ChainInstance& i, uint64_t client, Tenant* tenant = nullptr) {
    i.tenant = tenant;
    CHECK(chain.bind(i, 0));
    i.owner = owner(client);
    i.returns = true;
  }
  void leave(ChainInstance& i, bool parks = true, uint64_t now_ns = 0) {
    CHECK_EQ(parking.park(i, i.tenant, now_ns), parks);
    chain.unbind(i);
  }
  // As the dispatcher does for a client that comes.
  bool come_back(ChainInstance& i, uint64_t client, Tenant* tenant = nullptr) {
    std::unique_ptr<ParkedClient> parked = parking.take(owner(client), Isolation::client, tenant);
    come(i, client, tenant);
    return parked != nullptr && parking.resume(std::move(parked), i, 0);
  }
  const ParkingCounters& counters() const { return chain.counters.parking; }
  uint64_t dropped(Unkept why) const { return counters().dropped[size_t(why)]; }
  void check_law() const {
    uint64_t all = counters().resumed + counters().clients;
    for (const uint64_t count : counters().dropped) all += count;
    CHECK_EQ(counters().parked, all);
  }
  ~Lot() {
    parking.drop_all(chain, Unkept::removed);
    check_law();
    CHECK_EQ(counters().bytes, 0u);
  }
};

Fwp& fwp(ChainInstance& i) { return *i.fwps[0]; }

std::vector<uint8_t> memory_of(const Fwp& f) { return {f.memory, f.memory + f.memory_size}; }

void set_global(Fwp& f, uint32_t number, uint8_t kind, uint64_t value) {
  Fwp::Global global;
  global.kind = kind;
  std::memcpy(global.bytes.data(), &value, sizeof value);
  CHECK(f.set_global(number, global));
}

}  // namespace

TEST(all_state_comes_back) {
  Lot lot;
  ChainInstance one, other, back;
  lot.come(one, 1);
  const std::vector<Fwp::Global> fresh = fwp(one).globals();
  CHECK_EQ(fresh.size(), 3u);
  std::mt19937_64 random(4);
  CHECK(fwp(one).grow_memory(7 * kPage));
  for (int i = 0; i < 500; i++) fwp(one).memory[kFree + random() % (7 * kPage - kFree)] = static_cast<uint8_t>(random());
  std::memset(fwp(one).memory + 30'000, 0, 11);
  fwp(one).memory[7 * kPage - 1] = 77;
  set_global(fwp(one), 0, 0, 4000);
  set_global(fwp(one), 1, kI64, UINT64_MAX - 5);
  CHECK(fwp(one).timers.set(11, 5000));
  CHECK(fwp(one).timers.set(12, 4000));
  lot.timers.update(fwp(one));
  one.flows_ever = 41;
  const std::vector<uint8_t> memory = memory_of(fwp(one));
  const std::vector<Fwp::Global> globals = fwp(one).globals();
  CHECK(globals != fresh);
  lot.leave(one);
  CHECK_EQ(lot.timers.next_ns(), UINT64_MAX);
  CHECK(lot.counters().bytes < 10'000);

  lot.come(other, 2);  // gets the same FWP, clean
  CHECK_EQ(fwp(other).memory_size, 4 * kPage);
  CHECK(fwp(other).globals() == fresh);
  CHECK_EQ(std::memcmp(fwp(other).memory + 30'000, "as it began", 11), 0);
  const std::vector<uint8_t> clean = memory_of(fwp(other));
  CHECK_EQ(std::count(clean.begin() + kFree, clean.end(), 0), 4 * int64_t{kPage} - kFree - 11);

  CHECK(lot.come_back(back, 1));
  CHECK(memory_of(fwp(back)) == memory);
  CHECK(fwp(back).globals() == globals);
  CHECK_EQ(back.flows_ever, 41u);
  CHECK_EQ(lot.timers.next_ns(), 4000u);
  CHECK_EQ(fwp(back).timers.all().size(), 2u);
  CHECK_EQ(lot.counters().clients, 0u);
  lot.leave(back);
  lot.leave(other);
  CHECK_EQ(lot.counters().parked, 3u);
}

TEST(the_guests_counters_are_counted_once) {
  Lot lot;
  const auto seen = [&](const Fwp& f) { return read_counter(f, f.tmpl().layout().counters[0]); };
  for (uint64_t round = 1; round <= 5; round++) {
    ChainInstance i;
    CHECK_EQ(lot.come_back(i, 1), round > 1);
    const uint64_t before = seen(fwp(i));
    CHECK_EQ(before, 10 * (round - 1));
    CHECK_EQ(lot.chain.departed[0][0], 0u);
    const uint64_t more = before + 10;
    std::memcpy(fwp(i).memory + 29'992, &more, sizeof more);
    lot.leave(i);
    CHECK_EQ(lot.chain.departed[0][0], 10 * round);
  }
}

TEST(messages_and_slots_are_left_out) {
  Lot lot;
  ChainInstance one, back;
  lot.come(one, 1);
  std::memset(fwp(one).slot(0), 1, 64 * 256);
  std::memset(static_cast<void*>(fwp(one).messages()), 1, 64 * sizeof(GuestMessage));
  lot.leave(one);
  CHECK(lot.counters().bytes < 400);
  CHECK(lot.come_back(back, 1));
  CHECK_EQ(fwp(back).slot(0)[0], 0);
  lot.leave(back);
}

TEST(what_is_parked_is_for_its_owner_alone) {
  Lot lot;
  Tenant acme({"acme", {}}), globex({"globex", {}});
  ChainInstance one, stranger, changed, unit;
  lot.come(one, 1, &acme);
  fwp(one).memory[kFree] = 42;
  lot.leave(one);
  CHECK_EQ(acme.counters.parked, lot.counters().bytes);
  CHECK_EQ(acme.counters.memory, acme.counters.parked);
  CHECK(!lot.come_back(stranger, 2, &acme));
  CHECK_EQ(fwp(stranger).memory[kFree], 0);
  CHECK(!lot.come_back(changed, 1, &globex));
  CHECK_EQ(fwp(changed).memory[kFree], 0);
  CHECK_EQ(lot.dropped(Unkept::changed), 1u);
  CHECK_EQ(acme.counters.parked, 0u);
  lot.leave(stranger);
  lot.leave(changed);
  CHECK(lot.parking.take(Lot::owner(2), Isolation::flow, &acme) == nullptr);
  CHECK_EQ(lot.dropped(Unkept::changed), 2u);
  CHECK_EQ(lot.counters().clients, 1u);
}

TEST(the_longest_parked_give_way) {
  Lot lot(64 << 10);
  for (uint64_t client = 0; client < 10; client++) {
    ChainInstance i;
    lot.come(i, client);
    std::memset(fwp(i).memory + kFree, 9, 20'000);
    lot.leave(i, true, client);
    CHECK(lot.counters().bytes <= 64 << 10);
  }
  CHECK_EQ(lot.counters().clients, 3u);
  CHECK_EQ(lot.dropped(Unkept::keep_memory), 7u);
  ChainInstance first, last;
  CHECK(!lot.come_back(first, 0));
  CHECK(lot.come_back(last, 9));
  CHECK_EQ(fwp(last).memory[kFree + 19'999], 9);
  lot.leave(first);
  lot.leave(last);
}

TEST(one_that_is_too_large_displaces_nobody) {
  Lot lot(64 << 10);
  ChainInstance small, large;
  lot.come(small, 1);
  fwp(small).memory[kFree] = 1;
  lot.leave(small);
  Tenant acme({"acme", {}});
  lot.come(large, 2, &acme);
  std::mt19937_64 random(4);
  for (uint64_t at = kFree; at < 4 * kPage; at++) fwp(large).memory[at] = static_cast<uint8_t>(random());
  lot.leave(large, false);
  CHECK_EQ(lot.counters().too_large, 1u);
  CHECK_EQ(lot.counters().clients, 1u);
  CHECK(acme.counters.cpu_ns > 0);  // looking costs, whatever comes of it
}

TEST(a_tenants_parked_give_way_to_its_living) {
  Lot lot;
  Tenant acme({"acme", {.memory = 9 * kPage}});
  for (uint64_t client = 0; client < 3; client++) {
    ChainInstance i;
    lot.come(i, client, &acme);
    std::memset(fwp(i).memory + kFree, 9, 60'000);
    lot.leave(i, true, client);
  }
  CHECK_EQ(lot.counters().clients, 3u);  // 180,000 bytes of the 589,824
  ChainInstance one, two;
  CHECK(!acme.has_memory(8 * kPage));
  lot.come(one, 10, &acme);
  CHECK_EQ(lot.counters().clients, 3u);
  lot.come(two, 11, &acme);  // now 524,288 are in use
  CHECK_EQ(lot.counters().clients, 1u);
  CHECK_EQ(lot.dropped(Unkept::tenant_memory), 2u);
  CHECK(acme.counters.memory <= 9 * kPage);
  CHECK(!acme.obtain_memory(10 * kPage));  // nobody is dropped where it would not help
  CHECK_EQ(lot.counters().clients, 1u);
  lot.chain.unbind(one);
  lot.chain.unbind(two);
  acme.remove();
  CHECK_EQ(lot.dropped(Unkept::removed), 1u);
  CHECK_EQ(acme.counters.memory, 0u);
}

TEST(what_is_parked_ends_in_time) {
  Lot lot(1 << 20, 1000);
  for (uint64_t client = 0; client < 4; client++) {
    ChainInstance i;
    lot.come(i, client);
    lot.leave(i, true, client * 100);
  }
  CHECK_EQ(lot.parking.next_expiry_ns(lot.chain), 1000u);
  lot.parking.expire(lot.chain, 999, 10);
  CHECK_EQ(lot.counters().clients, 4u);
  lot.parking.expire(lot.chain, 5000, 1);
  CHECK_EQ(lot.counters().clients, 3u);
  lot.parking.expire(lot.chain, 1250, 10);
  CHECK_EQ(lot.counters().clients, 1u);
  CHECK_EQ(lot.dropped(Unkept::keep_timeout), 3u);
}

TEST(one_that_is_not_let_in_stays_parked) {
  Lot lot;
  ChainInstance one, back;
  lot.come(one, 1);
  fwp(one).memory[kFree] = 5;
  lot.leave(one);
  const uint64_t bytes = lot.counters().bytes;
  std::unique_ptr<ParkedClient> taken = lot.parking.take(Lot::owner(1), Isolation::client, nullptr);
  CHECK(taken != nullptr);
  CHECK_EQ(lot.counters().bytes, 0u);
  lot.parking.put_back(std::move(taken), 10);
  CHECK_EQ(lot.counters().bytes, bytes);
  CHECK(lot.come_back(back, 1));
  CHECK_EQ(fwp(back).memory[kFree], 5);
  lot.leave(back);
}

TEST(killed_shared_and_connected_are_not_parked) {
  Lot lot;
  ChainInstance killed, blocked, shared, connected;
  lot.come(killed, 1);
  lot.chain.kill(fwp(killed), Kill::trap);
  lot.leave(killed, false);
  lot.come(blocked, 2);
  blocked.blocked = true;
  lot.leave(blocked, false);
  lot.come(shared, 3);
  shared.returns = false;
  lot.leave(shared, false);
  lot.come(connected, 4);
  Connection connection;
  connected.streams.connections.push_back(connection);
  lot.leave(connected, false);
  CHECK_EQ(lot.counters().connected, 1u);
  CHECK_EQ(lot.counters().parked, 0u);
}

// The engine gives no memory beyond what the template may have: what says so is not laid over anything.
TEST(memory_that_cannot_be_had_is_a_failure) {
  Lot lot;
  ChainInstance one, back;
  lot.come(one, 1);
  lot.leave(one);
  std::unique_ptr<ParkedClient> parked = lot.parking.take(Lot::owner(1), Isolation::client, nullptr);
  uint8_t* memory = parked->bytes.get() + 1;  // behind the stage's number: 262,144 in three bytes
  memory[2] = 0x7f;
  lot.come(back, 1);
  CHECK(!lot.parking.resume(std::move(parked), back, 0));
  CHECK_EQ(lot.dropped(Unkept::failed), 1u);
  lot.leave(back);
}

// Under the address sanitizer: whatever a block holds, nothing outside the FWP is touched.
TEST(damaged_blocks_lead_nowhere) {
  Lot lot;
  std::mt19937_64 random(9);
  for (int round = 0; round < 3000; round++) {
    ChainInstance one, back;
    lot.come(one, 1);
    fwp(one).memory[kFree + random() % 1000] = 1;
    CHECK(fwp(one).timers.set(1, 1));
    set_global(fwp(one), 1, kI64, random());
    lot.leave(one);
    std::unique_ptr<ParkedClient> parked = lot.parking.take(Lot::owner(1), Isolation::client, nullptr);
    for (int i = 0; i < 3; i++) parked->bytes[random() % parked->len] = static_cast<uint8_t>(random());
    lot.come(back, 1);
    lot.parking.resume(std::move(parked), back, 0);
    lot.chain.unbind(back);
  }
}
