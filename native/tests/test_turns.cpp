// Turns between clients, by times that are given rather than measured.
#include "../kernel/turns.hpp"

#include "check.hpp"
#include "wasm_guest.hpp"

using namespace edgeos;
using namespace edgeos::check;

namespace {

// FWPs with an owner each, as if bound to a chain.
struct Clients {
  explicit Clients(size_t count) : engine(engine_settings()), tmpl(make_template(engine)), owners(count) {
    for (ChainInstance& owner : owners) {
      fwps.push_back(std::make_unique<Fwp>(*tmpl));
      fwps.back()->owner = &owner;
    }
  }
  // A burst that used so much CPU time. Whoever is slow is measured from the next burst on, so there is one before.
  void ran(size_t client, uint64_t cpu_ns, uint32_t messages = 1) {
    if (cpu_ns > kTurnNs && !fwps[client]->watched) seemed(client, cpu_ns, 0, messages);
    seemed(client, cpu_ns, cpu_ns, messages);
  }
  void seemed(size_t client, uint64_t elapsed_ns, uint64_t cpu_ns, uint32_t messages) {
    Run run;
    run.fwp = fwps[client].get();
    run.count = messages;
    run.cpu_ns = cpu_ns;
    charge(run, elapsed_ns);
  }
  size_t number(const Fwp* fwp) const {
    return static_cast<size_t>(std::find_if(fwps.begin(), fwps.end(), [&](const auto& f) { return f.get() == fwp; }) - fwps.begin());
  }
  Engine engine;
  std::unique_ptr<FwpTemplate> tmpl;
  std::vector<ChainInstance> owners;
  std::vector<std::unique_ptr<Fwp>> fwps;
};

}  // namespace

TEST(quick_clients_take_turns_in_the_order_of_their_arrival) {
  open_library();
  Clients clients(3);
  ReadyList ready;
  for (int round = 0; round < 3; round++) {
    for (auto& fwp : clients.fwps) ready.push(*fwp);
    for (size_t i = 0; i < 3; i++) {
      CHECK_EQ(clients.number(ready.next()), i);
      clients.ran(i, kTurnNs);
    }
    CHECK(ready.next() == nullptr);
  }
}

TEST(a_client_in_debt_sits_out_a_turn_for_each_that_it_used) {
  open_library();
  Clients clients(2);
  ReadyList ready;
  clients.ran(0, 6 * kTurnNs);
  uint32_t light = 0;
  for (ready.push(*clients.fwps[0]), ready.push(*clients.fwps[1]);; light++) {
    Fwp* next = ready.next();
    if (clients.number(next) == 0) break;
    clients.ran(1, 1'000);
    ready.push(*next);
  }
  CHECK_EQ(light, 5u);
  CHECK_EQ(clients.owners[0].debt_ns, 0u);
}

TEST(a_client_alone_runs_whatever_it_owes) {
  open_library();
  Clients clients(1);
  ReadyList ready;
  for (int i = 0; i < 5; i++) {
    clients.ran(0, 1000 * kTurnNs);
    ready.push(*clients.fwps[0]);
    CHECK(ready.next() == clients.fwps[0].get());
  }
  clients.ran(0, 2 * kDebtMaxNs);
  CHECK_EQ(clients.owners[0].debt_ns, kDebtMaxNs);
}

TEST(a_heavy_client_comes_to_its_share_beside_many_that_never_rest) {
  open_library();
  Clients clients(4);
  ReadyList ready;
  std::vector<uint64_t> used(4);
  for (auto& fwp : clients.fwps) ready.push(*fwp);
  for (int turn = 0; turn < 10'000; turn++) {
    Fwp* fwp = ready.next();
    const size_t client = clients.number(fwp);
    const uint64_t took_ns = client == 0 ? 20 * kTurnNs : kTurnNs;
    used[client] += took_ns;
    clients.ran(client, took_ns);
    ready.push(*fwp);
  }
  for (size_t i = 1; i < 4; i++) CHECK(used[0] < used[i] * 11 / 10 && used[0] > used[i] * 9 / 10);
}

TEST(a_client_that_the_machine_held_up_owes_nothing) {
  open_library();
  Clients clients(1);
  clients.seemed(0, 50 * kTurnNs, 0, 32);
  CHECK(clients.fwps[0]->watched);
  clients.seemed(0, 50 * kTurnNs, kTurnNs / 2, 32);
  CHECK(!clients.fwps[0]->watched);
  CHECK_EQ(clients.owners[0].debt_ns, 0u);
  CHECK_EQ(clients.fwps[0]->turn, kBurst);
}

TEST(bursts_shrink_to_a_turn_and_grow_again) {
  open_library();
  Clients clients(1);
  Fwp& fwp = *clients.fwps[0];
  CHECK_EQ(fwp.turn, kBurst);
  clients.ran(0, 8 * kTurnNs, 32);
  CHECK_EQ(fwp.turn, 4u);
  clients.ran(0, 100 * kTurnNs, 4);
  CHECK_EQ(fwp.turn, 1u);
  for (uint32_t turn : {2u, 4u, 8u, 16u, 32u, kBurst, kBurst}) {
    clients.ran(0, kTurnNs / 2, fwp.turn);
    CHECK_EQ(fwp.turn, turn);
  }
}
