#include "worker.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>

#include "leftovers.hpp"

namespace edgeos {
namespace {

constexpr uint32_t kMaintainBusy = 8;   // instances ended, and FWPs recycled or made, between two bursts
constexpr uint32_t kMaintainIdle = 64;  // and when there is nothing else to do
constexpr int kQueuedPollMs = 1;        // how soon a port with unsent packets is tried again

}  // namespace

Worker::Worker(const EngineSettings& engine, const WorkerSettings& settings)
    : engine_(engine), settings_(settings), ticker_(engine_), mma_(ports_, ready_, timers_), wake_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (wake_fd_ < 0) throw std::system_error(errno, std::generic_category(), "cannot make an eventfd");
}

Worker::~Worker() {
  stop();
  close(wake_fd_);
}

void Worker::add_port(Port* port) {
  if (ports_.size() == kPortsMax) throw std::runtime_error("a node has at most " + std::to_string(kPortsMax) + " ports");
  ports_.push_back(port);
  retired_ports_.push_back(false);
}

void Worker::add_upstream(UpstreamSettings upstream) { upstreams_.push_back(std::move(upstream)); }

// Everything that a first message would otherwise wait for.
void Worker::prepare() {
  if (prepared_) return;
  give_back_leftovers();  // before FWPs are made, which brings back the code that makes them
  // Chains may come later, so there is an owner's entry for every FWP that the engine can make, and one for every wire.
  const uint32_t instances = engine_.settings().fwps + kChainsMax;
  dispatcher_ = std::make_unique<Dispatcher>(ports_, chains_, rules_, decisions_, mma_, settings_.max_flows, instances);
  const auto is_listener = [](Port* port) { return port->as_listener() != nullptr; };
  if (!upstreams_.empty() || std::any_of(ports_.begin(), ports_.end(), is_listener)) make_streams();
  for (uint16_t number = 0; number < ports_.size(); number++)
    if (Listener* listener = ports_[number]->as_listener(); listener != nullptr && !retired_ports_[number]) {
      streams_->add_listener(*listener, number);
      streams_->open_listener(*listener);
    }
  for (auto& pool : pools_) {
    prove(pool->tmpl());
    while (pool->maintain(kMaintainIdle)) {
    }
  }
  if (settings_.dedicated_mover) {
    mma_.share_room();
    executor_ = make_dedicated_executor(clock_, [this] { ticker_.watch_this_thread(); });
  } else {
    guest_thread_ = std::this_thread::get_id();
    executor_ = make_inline_executor(clock_);
    ticker_.watch_this_thread();
  }
  started_ns_ = clock_.now_ns();
  prepared_ = true;
}

void Worker::make_streams() {
  streams_ = std::make_unique<Streams>(ports_, upstreams_, *dispatcher_, ready_);
  mma_.set_streams(streams_.get());
}

bool Worker::run_once() {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::started) throw std::runtime_error("the node runs on a thread of its own and cannot be stepped");
    if (phase_ == Phase::stopped) throw std::runtime_error("the node has been stopped");
    if (phase_ == Phase::stepped && stepper_ != std::this_thread::get_id())
      throw std::runtime_error("the node is stepped by another thread, whose CPU time the guests' budgets are measured by");
    phase_ = Phase::stepped;
    stepper_ = std::this_thread::get_id();
  }
  const std::lock_guard lock(data_plane_);
  if (prepared_ && executor_ == nullptr) throw std::runtime_error("the node has been stopped");
  if (iterate()) return true;
  const bool waits = executor_->outstanding() > 0;
  if (waits) std::this_thread::yield();
  return waits;
}

bool Worker::iterate() {
  prepare();
  iterations_++;
  const uint64_t now_ns = clock_.now_ns();
  bool busy = run_timers(now_ns);  // first, so that ports do not take all the room
  busy |= dispatcher_->receive(now_ns);
  if (streams_ != nullptr) busy |= streams_->receive(now_ns);
  busy |= run_ready();
  flush_ports();
  if (busy) last_work_ns_ = now_ns;
  return housekeep(busy, now_ns) || busy;
}

bool Worker::run_timers(uint64_t now_ns) {
  bool any = false;
  for (uint32_t i = 0; i < kTimerBurst; i++) {
    Fwp* fwp = timers_.pop_due(now_ns);
    if (fwp == nullptr) break;
    if (fwp->running) continue;  // it comes back when its burst is finished
    if (const Tenant* tenant = fwp->owner->tenant; tenant != nullptr && !tenant->may_run(now_ns)) {
      timers_.update(*fwp, now_ns + kTimerRetryNs);
      continue;
    }
    const bool all = mma_.deliver_timers(*fwp, now_ns);
    timers_.update(*fwp, all ? 0 : now_ns + kTimerRetryNs);
    any = true;
  }
  return any;
}

// Charges for a burst, then moves on what it has left behind.
void Worker::end_burst(Run& run, uint64_t now_ns) {
  const uint64_t since_ns = std::max(run.submitted_ns, done_ns_);
  charge_tenant(run, charge(run, now_ns - std::min(now_ns, since_ns)));  // on another core the counter may be behind
  done_ns_ = now_ns;
  const bool asks_much = run.connects + run.stream_ops > run.count;
  asks_much ? finish_at_clients_cost(run) : finish(run);
  executor_->release(run);
}

void Worker::finish(Run& run) {
  if (mma_.finish(run) && !run.ended_flows.empty()) dispatcher_->end_flows(*run.fwp, run.ended_flows);
}

// Connecting and sending take the system long, and ending flows the dispatcher, and the guest that asks for it no time. Once a
// message may be its due; who asks for more pays for it.
void Worker::finish_at_clients_cost(Run& run) {
  ChainInstance& instance = *run.fwp->owner;
  Tenant* tenant = instance.tenant;
  const uint64_t before_ns = span_clock_.now_ns();
  finish(run);
  const uint64_t used_ns = span_clock_.now_ns() - before_ns;
  owe(instance, used_ns);
  if (tenant != nullptr) tenant->charge_cpu(used_ns, clock_.now_ns());
}

void Worker::charge_tenant(Run& run, uint64_t used_ns) {
  Tenant* tenant = run.fwp->owner->tenant;
  if (tenant == nullptr) return;
  if (!tenant->charge(run, used_ns, clock_.now_ns()) && run.result == Kill::none) run.result = Kill::tenant_memory;
}

bool Worker::run_ready() {
  bool any = false;
  const uint64_t started_ns = span_clock_.now_ns();
  for (uint64_t now_ns = started_ns;; now_ns = span_clock_.now_ns()) {
    while (Run* done = executor_->completed()) {
      end_burst(*done, now_ns);
      any = true;
    }
    if (now_ns - started_ns > kRunNs) return true;
    Fwp* fwp = executor_->has_room() ? ready_.next() : nullptr;
    if (fwp == nullptr) return any;
    if (streams_ != nullptr && fwp->owner->streams.stalled > 0) continue;  // back in turn when its clients have read
    Run& run = executor_->next_run();
    mma_.begin(run, *fwp);
    run.submitted_ns = now_ns;
    executor_->submit(run);
  }
}

void Worker::flush_ports() {
  for (Port* port : ports_) port->flush();
}

bool Worker::housekeep(bool busy, uint64_t now_ns) {
  bool more = false;
  for (auto& pool : pools_)
    if (pool != nullptr) {
      if (pool->follows_at(now_ns)) pool->follow(now_ns, places_of(*pool));
      more |= pool->maintain(busy ? kMaintainBusy : kMaintainIdle);
    }
  dispatcher_->expire(now_ns, busy ? kMaintainBusy : kMaintainIdle);
  if (streams_ != nullptr) streams_->expire(now_ns, busy ? kMaintainBusy : kMaintainIdle);
  return more;
}

bool Worker::finished() const {
  const auto idle = [](const Port* p) { return p->queued() == 0; };
  return dispatcher_->exhausted() && dispatcher_->held() == 0 && ready_.empty() && executor_->outstanding() == 0 &&
         std::all_of(ports_.begin(), ports_.end(), idle);
}

void Worker::start() {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::set_up) throw std::runtime_error("a node starts once, and not after it was stepped or stopped");
  thread_ = std::thread([this] { loop(); });
  phase_ = Phase::started;
  running_ = true;
}

void Worker::stop() {
  const std::lock_guard only_one(stopping_mutex_);
  decisions_.stop();
  stopping_ = true;
  wake();
  if (thread_.joinable()) thread_.join();
  {
    const std::lock_guard lock(mutex_);
    phase_ = Phase::stopped;
  }
  const std::lock_guard lock(data_plane_);
  if (!prepared_ || executor_ == nullptr) return;
  // What the executor still runs is finished, or ended by its budget; what only waits is dropped, and counted.
  ticker_.set_busy(true);
  drain_executor();
  if (streams_ != nullptr) streams_->shut_down();  // FWPs that waited for slow readers are ready then
  while (ready_.pop() != nullptr) {
  }
  dispatcher_->shut_down();
  for (Port* port : ports_) port->flush();
  executor_.reset();
  ticker_.stop();
}

void Worker::loop() {
  const std::lock_guard lock(data_plane_);
  std::string failure;
  try {
    while (!stopping_.load(std::memory_order_relaxed)) {
      bool busy = iterate();
      if (has_commands_.load(std::memory_order_acquire)) {
        run_commands();
        busy = true;  // they may have left something to do
      }
      if (busy) continue;
      if (executor_->outstanding() > 0) {  // the executor may need this core
        std::this_thread::yield();
        continue;
      }
      if (finished()) break;
      wait_for_work();
    }
  } catch (const std::exception& e) {
    failure = e.what();
  }
  ticker_.set_busy(false);
  {
    const std::lock_guard lock(mutex_);
    running_ = false;
    finished_ = true;
    failure_ = failure;
  }
  run_commands();  // those that were asked before running_ was taken back
  changed_.notify_all();
}

void Worker::wait_for_work() {
  if (settings_.wait == Wait::spin) return;
  const uint64_t now_ns = clock_.now_ns();
  if (settings_.wait == Wait::adaptive && now_ns - last_work_ns_ < kSpinNs) return;
  pollfd fds[kPortsMax + 2];
  nfds_t count = 0;
  fds[count++] = {wake_fd_, POLLIN, 0};
  if (streams_ != nullptr) fds[count++] = {streams_->wait_fd(), POLLIN, 0};
  bool queued = false;
  for (const Port* port : ports_) {
    if (port->wait_fd() >= 0 && !port->exhausted()) fds[count++] = {port->wait_fd(), POLLIN, 0};
    queued |= port->queued() > 0 && port->wait_fd() >= 0;
  }
  const uint64_t streams_ns = streams_ != nullptr ? streams_->next_expiry_ns() : UINT64_MAX;
  uint64_t expiry_ns = std::min({dispatcher_->next_expiry_ns(), timers_.next_ns(), streams_ns});
  for (const auto& pool : pools_)
    if (pool != nullptr) expiry_ns = std::min(expiry_ns, pool->next_ns());
  int timeout_ms = -1;
  if (expiry_ns != UINT64_MAX)
    timeout_ms = expiry_ns <= now_ns ? 0 : static_cast<int>(std::min<uint64_t>((expiry_ns - now_ns) / 1'000'000 + 1, 60'000));
  if (queued) timeout_ms = kQueuedPollMs;
  ticker_.set_busy(false);
  poll(fds, count, timeout_ms);
  ticker_.set_busy(true);
  uint64_t ignored;
  while (read(wake_fd_, &ignored, sizeof ignored) > 0) {
  }
}

void Worker::wake() {
  const uint64_t one = 1;
  while (write(wake_fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void Worker::run_commands() {
  std::vector<std::function<void()>> commands;
  {
    const std::lock_guard lock(mutex_);
    commands.swap(commands_);
    has_commands_ = false;
  }
  for (const auto& command : commands) command();
}

void Worker::call(const std::function<void()>& f) {
  std::unique_lock lock(mutex_);
  while (!running_) {
    if (const std::unique_lock owner(data_plane_, std::try_to_lock); owner) {
      lock.unlock();
      return f();
    }
    // Another thread steps, starts or stops the node: soon it is ours, or there is a loop to ask.
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::microseconds(50));
    lock.lock();
  }
  bool done = false;
  std::exception_ptr thrown;
  commands_.push_back([&] {
    try {
      f();
    } catch (...) {
      thrown = std::current_exception();
    }
    const std::lock_guard inner(mutex_);
    done = true;
    changed_.notify_all();
  });
  has_commands_ = true;
  wake();
  changed_.wait(lock, [&] { return done; });
  if (thrown) std::rethrow_exception(thrown);
}

bool Worker::wait_finished(uint64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [&] { return finished_; });
}

std::string Worker::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

}  // namespace edgeos
