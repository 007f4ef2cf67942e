// Flows of packets that guests say are over: a node forgets them, and their client with the last one, whatever guests say.
#include <cstring>
#include <random>

#include "../kernel/worker.hpp"
#include "../ports/memory_port.hpp"
#include "check.hpp"
#include "wasm_guest.hpp"

using namespace edgeos;
using namespace edgeos::check;

namespace {

// For each packet: closes its own flow when byte 42 is 1, and the flow of the number in byte 43 when that is not 0; passes it on.
const std::string kCloser =
    "(module (import \"edgeos\" \"stream\" (func $stream (param i32 i64 i32 i32 i32 i32) (result i32)))"
    "(memory (export \"memory\") 4)"
    "(func (export \"edgeos_burst\") (param $first i32) (param $count i32) (local $message i32) (local $data i32)"
    "  (loop $next"
    "    (local.set $message (i32.add (i32.const 1024) (i32.shl (local.get $first) (i32.const 5))))"
    "    (local.set $data (i32.load (local.get $message)))"
    "    (if (i32.eq (i32.load8_u offset=42 (local.get $data)) (i32.const 1)) (then"
    "      (drop (call $stream (local.get $first) (i64.load offset=16 (local.get $message))"
    "                          (i32.const -2) (i32.const 4) (i32.const 0) (i32.const 0)))))"
    "    (drop (call $stream (local.get $first) (i64.load8_u offset=43 (local.get $data))"
    "                        (i32.const -2) (i32.const 4) (i32.const 0) (i32.const 0)))"
    "    (i32.store (i32.add (i32.const 4096) (i32.shl (local.get $first) (i32.const 2))) (i32.const 0))"
    "    (local.set $first (i32.add (local.get $first) (i32.const 1)))"
    "    (local.set $count (i32.sub (local.get $count) (i32.const 1)))"
    "    (br_if $next (local.get $count)))))";

std::vector<uint8_t> compiled(const Engine& engine) {
  wasm_byte_vec_t bytes;
  wasmtime_check(wt.wasmtime_wat2wasm(kCloser.data(), kCloser.size(), &bytes), "cannot assemble");
  const std::vector<uint8_t> wasm(bytes.data, bytes.data + bytes.size);
  wt.wasm_byte_vec_delete(&bytes);
  return engine.compile(wasm);
}

// A UDP packet of one of 256 clients.
std::vector<uint8_t> packet(uint8_t client, uint8_t port, uint8_t closes, uint8_t number) {
  std::vector<uint8_t> frame(64);
  frame[12] = 0x08;
  frame[14] = 0x45;
  frame[23] = 17;
  frame[26] = 10;
  frame[29] = client;
  frame[30] = 192;
  frame[35] = port;
  frame[37] = 53;
  frame[42] = closes;
  frame[43] = number;
  return frame;
}

struct Node {
  MemoryPort lan{"lan"};
  MemoryPort wan{"wan"};
  Worker worker;

  explicit Node(bool dedicated, Isolation isolation = Isolation::client, uint32_t max_flows = 1024)
      : worker((open_library(), engine_settings(64)), settings(dedicated, max_flows)) {
    worker.add_port(&lan);
    worker.add_port(&wan);
    Change change;
    change.chains.push_back(chain());
    Rule rule;
    rule.id = 1;
    rule.action = Rule::kNewChain;
    rule.isolation = isolation;
    change.rules.push_back(rule);
    worker.apply(std::move(change));
  }
  ~Node() { worker.stop(); }
  static WorkerSettings settings(bool dedicated, uint32_t max_flows) {
    WorkerSettings s;
    s.dedicated_mover = dedicated;
    s.max_flows = max_flows;
    return s;
  }
  ChainSpec chain() {
    auto tmpl = std::make_unique<FwpTemplate>(worker.engine(), "closer", compiled(worker.engine()), layout(), 50'000'000);
    const uint32_t number = worker.add_template(std::move(tmpl), 2, 8, 8);
    ChainSpec spec;
    spec.name = "edge";
    spec.max_fwps = 32;
    spec.stages.emplace_back();
    spec.stages[0].pool = worker.pool(number);
    for (const uint8_t direction : {kForward, kReverse})
      spec.stages[0].routes[direction][2] =
          Destination{Destination::Kind::port, static_cast<uint8_t>(direction == kForward ? 1 : 0), direction, 0};
    spec.entries[0] = Entry{true, 0, kForward, 0};
    spec.entries[1] = Entry{true, 0, kReverse, 1};
    return spec;
  }
  void inject(const std::vector<uint8_t>& frame) { lan.inject(frame.data(), static_cast<uint32_t>(frame.size()), 0); }
  Snapshot settle() {
    while (worker.run_once()) {
    }
    return worker.snapshot(false);
  }
};

void check_law(const Snapshot& s) {
  const ChainCounters& c = s.chains[0].counters;
  uint64_t dropped = 0;
  for (const uint64_t count : c.dropped) dropped += count;
  CHECK_EQ(c.received, c.sent + dropped + s.chains[0].in_flight);
}

}  // namespace

TEST(a_client_ends_with_its_last_flow) {
  for (const bool dedicated : {false, true}) {
    Node node(dedicated);
    for (uint64_t life = 1; life <= 20; life++) {
      node.inject(packet(1, 1, 0, 0));
      node.inject(packet(1, 2, 0, 0));
      CHECK_EQ(node.settle().chains[0].counters.live, 1u);
      node.inject(packet(1, 1, 1, 0));
      CHECK_EQ(node.settle().chains[0].counters.live, 1u);
      node.inject(packet(1, 2, 1, 0));
      const Snapshot s = node.settle();
      CHECK_EQ(s.chains[0].counters.live, 0u);
      CHECK_EQ(s.chains[0].counters.activations, life);
      CHECK_EQ(s.chains[0].counters.expired, life);
      CHECK_EQ(s.flows, 0u);
      check_law(s);
    }
  }
}

TEST(whatever_guests_close_the_node_is_in_order) {
  for (const Isolation isolation : {Isolation::shared, Isolation::client, Isolation::flow})
    for (const bool dedicated : {false, true}) {
      std::mt19937 random(5);
      const auto below = [&](uint32_t n) { return static_cast<uint8_t>(random() % n); };
      Node node(dedicated, isolation, 40);
      for (int step = 0; step < 3'000; step++) {
        for (uint32_t i = below(40); i > 0; i--)
          node.inject(packet(below(12), below(5), below(3), below(3) > 0 ? 0 : below(60)));
        node.worker.run_once();
        check_law(node.worker.snapshot(false));
      }
      for (uint8_t client = 0; client < 12; client++)
        for (uint8_t port = 0; port < 5; port++) node.inject(packet(client, port, 1, 0));
      const Snapshot s = node.settle();
      check_law(s);
      CHECK_EQ(s.in_flight, 0u);
      CHECK(isolation != Isolation::shared || s.chains[0].counters.live == 1);
    }
}
