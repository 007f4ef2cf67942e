// What the control plane asks of a running worker beside its counters: each request is a command between two iterations.
#include "worker.hpp"

namespace edgeos {
namespace {

constexpr size_t kAccessSlice = 64;  // calls of guests in one command, so that traffic waits for few

}  // namespace

void Worker::drain_executor() {
  while (executor_->outstanding() > 0)
    if (Run* done = executor_->completed()) {
      mma_.finish(*done);
      executor_->release(*done);
    }
}

bool Worker::access_one(ChainInstance& instance, uint8_t stage, const HandlerCall& call, HandlerAnswer& answer) {
  drain_executor();
  Fwp* fwp = instance.fwps[stage];
  if (fwp == nullptr) return false;
  HandlerCall own = call;
  Run& run = executor_->next_run();
  run.fwp = fwp;
  run.handler = &own;
  fwp->running = true;
  executor_->submit(run);
  while (executor_->completed() == nullptr) std::this_thread::yield();
  fwp->running = false;
  answer = HandlerAnswer{instance.owner, own.status, run.result, std::move(own.value)};
  executor_->release(run);
  if (answer.cause != Kill::none) {
    ready_.remove(*fwp);
    instance.chain->kill(*fwp, answer.cause);
  }
  return true;
}

std::vector<HandlerAnswer> Worker::access(uint32_t chain, uint8_t stage, const std::optional<Address>& client,
                                          const HandlerCall& request) {
  struct Wanted {
    uint32_t number;
    FlowKey owner;
  };
  std::vector<Wanted> wanted;
  call([&] {
    if (dispatcher_ == nullptr) return;
    if (stage >= chains_.at(chain)->spec().stages.size()) throw std::runtime_error("there is no such stage");
    dispatcher_->for_each_instance([&](const ChainInstance& i) {
      if (i.chain == chains_[chain].get() && (!client || i.owner.a == *client)) wanted.push_back({i.number, i.owner});
    });
  });
  std::vector<HandlerAnswer> answers;
  for (size_t first = 0; first < wanted.size(); first += kAccessSlice) {
    call([&] {
      if (executor_ == nullptr) return;
      if (guest_thread_ != std::thread::id{} && guest_thread_ != std::this_thread::get_id())
        throw std::runtime_error("the node does not run, and another thread has stepped it");
      for (size_t i = first; i < wanted.size() && i < first + kAccessSlice; i++) {
        ChainInstance& instance = dispatcher_->instance(wanted[i].number);
        HandlerAnswer answer;
        if (instance.chain != chains_[chain].get() || !(instance.owner == wanted[i].owner)) continue;  // it has left
        if (access_one(instance, stage, request, answer)) answers.push_back(std::move(answer));
      }
    });
  }
  return answers;
}

}  // namespace edgeos
