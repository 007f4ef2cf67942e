// One data-plane loop with everything it owns: ports, pools, chains, flow table, mover and executor.
//
// run_once() is the whole path of a message. Threading: the loop runs on the worker's own thread once start() has been
// called; call() and snapshot() may then be used from any thread and take effect between two iterations.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "chain.hpp"
#include "clock.hpp"
#include "dispatcher.hpp"
#include "engine.hpp"
#include "executor.hpp"
#include "mma.hpp"
#include "streams.hpp"
#include "ticker.hpp"

namespace edgeos {

enum class Phase : uint8_t { set_up, stepped, started, stopped };
enum class Wait : uint8_t { adaptive, spin, block };

struct WorkerSettings {
  bool dedicated_mover = false;
  Wait wait = Wait::adaptive;
  uint32_t max_flows = 65536;
};

struct StageSnapshot {
  std::string name;
  uint64_t handled = 0;
  uint64_t bursts = 0;
  uint64_t ready = 0;
  uint64_t ready_wanted = 0;
  PoolCounters pool;
  std::vector<std::pair<std::string, uint64_t>> counters;  // of the guest, summed over all its FWPs
};

struct ParkingTimesSnapshot {
  uint64_t park_p50_ns = 0;
  uint64_t park_p99_ns = 0;
  uint64_t resume_p50_ns = 0;
  uint64_t resume_p99_ns = 0;
};

struct ChainSnapshot {
  std::string name;
  ChainCounters counters;
  bool retired = false;
  uint64_t in_flight = 0;
  uint64_t activation_p50_ns = 0;
  uint64_t activation_p99_ns = 0;
  uint64_t activation_max_ns = 0;
  std::vector<StageSnapshot> stages;
  std::optional<ParkingTimesSnapshot> parking_times;  // where clients are kept
};

struct PortSnapshot {
  std::string name;
  PortCounters counters;
  uint64_t queued = 0;
  std::string mode;
  std::string problem;
  bool retired = false;
  std::optional<ConnectionCounters> connections;  // of a listener
};

struct TenantSnapshot {
  std::string name;
  Quotas quotas;
  TenantCounters counters;
};

struct Snapshot {
  uint64_t elapsed_ns = 0;
  uint64_t iterations = 0;
  uint64_t received = 0;
  uint64_t in_flight = 0;  // in rings, held fragments, received but not admitted yet
  uint64_t flows = 0;
  DropCounts dropped{};    // before a chain was found
  std::vector<ChainSnapshot> chains;
  std::vector<PortSnapshot> ports;
  std::vector<TenantSnapshot> tenants;
  DecisionCounters decisions;
};

struct ClientSnapshot {
  FlowKey owner;
  uint64_t idle_ns = 0;
  uint32_t in_flight = 0;
  uint32_t flows = 0;
  bool blocked = false;
  std::vector<std::vector<uint64_t>> counters;  // by stage, of the guest
};

struct HandlerAnswer {
  FlowKey owner;
  HandlerStatus status = HandlerStatus::done;
  Kill cause = Kill::none;
  std::string value;
};

// What may change while messages pass, all of it or nothing.
struct Change {
  std::vector<ChainSpec> chains;             // new ones; their numbers are given
  std::vector<uint32_t> retired_chains;      // by number
  std::vector<uint32_t> retired_templates;   // by number
  std::vector<Rule> rules;                   // new ones
  std::vector<uint64_t> removed_rules;       // by id
  std::vector<std::pair<uint64_t, uint64_t>> rule_orders;  // id and new order
  std::vector<TenantSpec> tenants;           // new ones, and new quotas of those that are there
  std::vector<std::string> removed_tenants;
};

class Worker {
 public:
  Worker(const EngineSettings& engine, const WorkerSettings& settings);
  ~Worker();

  // Set-up, before the first iteration. Numbers are given in order, from 0.
  void add_port(Port* port);  // the caller keeps it alive
  void add_upstream(UpstreamSettings upstream);

  // At any time, from any thread. The number of a new template; numbers of what has gone are given again.
  uint32_t add_template(std::unique_ptr<FwpTemplate> tmpl, uint32_t ready_low, uint32_t ready_high, uint32_t ready_max);
  // The numbers of the new chains. Throws std::runtime_error, and changes nothing, when the change does not fit.
  std::vector<uint32_t> apply(Change change);
  Pool* pool(uint32_t number) { return pools_.at(number).get(); }

  // One iteration on the calling thread, always the same. True if there was anything to do. Not together with start().
  bool run_once();

  // Once; throws std::runtime_error after run_once(), start() or stop().
  void start();
  // Stops the loop and its threads; what is in flight is dropped and counted. Idempotent.
  void stop();
  // True once every port is exhausted and every message accounted for; waits up to the given time.
  bool wait_finished(uint64_t timeout_ns);
  // What ended the loop early, empty if nothing did.
  std::string failure() const;

  void call(const std::function<void()>& f);
  void close_chain(uint32_t chain);
  // The number of a listener that comes to a running node. It lets nobody in before change_listeners().
  uint32_t add_listener(Port* port);  // the caller keeps it alive
  // Some listeners let clients in from now on, others none any more: who is in stays, but flows of datagrams end. By number.
  void change_listeners(const std::vector<uint32_t>& opened, const std::vector<uint32_t>& closed);
  // Listeners let nobody in any more; who is in stays.
  void stop_listening();
  // Lets no new clients in, at listeners and at ports for packets; those that are there stay until they leave.
  void drain();
  // What becomes of clients that no rule matches: they are asked about, or not any more. Throws when the default cannot be had.
  void set_decisions(std::optional<DecisionSettings> settings);
  // From the thread that asks; nothing is taken after stop(). An answer that names a chain that is not there fails.
  std::vector<Question> take_questions(uint64_t timeout_ns) { return decisions_.take_questions(timeout_ns); }
  void answer(uint64_t question, const std::optional<Rule>& rule);
  Snapshot snapshot(bool with_guest_counters);
  std::vector<ClientSnapshot> clients(uint32_t chain);
  // Reads or writes a guest's named value at one stage, in the FWP of the client with this address or in all live ones. A
  // thread that runs no guests may not do so in a node that is stepped or has come to its end: std::runtime_error.
  std::vector<HandlerAnswer> access(uint32_t chain, uint8_t stage, const std::optional<Address>& client, const HandlerCall& call);

  Engine& engine() { return engine_; }
  Clock& clock() { return clock_; }
  // A node that sleeps notices.
  void set_fake_time(uint64_t ns) {
    clock_.set_fake_ns(ns);
    wake();
  }

 private:
  void prepare();
  void make_streams();
  bool run_timers(uint64_t now_ns);
  static void prove(const FwpTemplate& tmpl);
  void sweep();
  void check(const Change& change) const;
  Tenant* tenant(const std::string& name);
  uint64_t places_of(const Pool& pool) const;
  bool can_run(const Rule& rule);
  void end_burst(Run& run, uint64_t now_ns);
  void charge_tenant(Run& run, uint64_t used_ns);
  void finish(Run& run);
  void finish_at_clients_cost(Run& run);
  bool run_ready();
  void flush_ports();
  bool housekeep(bool busy, uint64_t now_ns);
  bool finished() const;
  bool iterate();
  void loop();
  void wait_for_work();
  void run_commands();
  void drain_executor();
  bool access_one(ChainInstance& instance, uint8_t stage, const HandlerCall& call, HandlerAnswer& answer);
  void wake();
  ChainSnapshot chain_snapshot(const Chain& chain, bool with_guest_counters) const;

  Engine engine_;
  WorkerSettings settings_;
  Clock clock_;
  SpanClock span_clock_;
  Ticker ticker_;
  std::vector<Port*> ports_;
  std::vector<bool> retired_ports_;  // by number
  std::vector<std::unique_ptr<Pool>> pools_;
  std::vector<std::unique_ptr<Chain>> chains_;
  ChainCounters gone_;  // of chains whose places were given to others
  std::vector<std::unique_ptr<Tenant>> tenants_;
  RuleTable rules_;
  Decisions decisions_;
  ReadyList ready_;
  TimerQueue timers_;
  Mma mma_;
  std::vector<UpstreamSettings> upstreams_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<Streams> streams_;  // when there are listeners
  std::unique_ptr<Executor> executor_;
  uint64_t started_ns_ = 0;
  uint64_t iterations_ = 0;
  uint64_t last_work_ns_ = 0;
  uint64_t done_ns_ = 0;  // when a burst was last found to be done

  bool prepared_ = false;
  std::thread::id guest_thread_;  // whose CPU time the budgets are measured by; none with a dedicated mover

  std::mutex stopping_mutex_;  // one stop() at a time
  std::mutex data_plane_;      // held by whoever uses what stands above: the loop, a step, or a call while neither runs
  std::thread::id stepper_;
  int wake_fd_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> has_commands_{false};
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<std::function<void()>> commands_;
  Phase phase_ = Phase::set_up;
  bool running_ = false;
  bool finished_ = false;
  std::string failure_;
};

}  // namespace edgeos
