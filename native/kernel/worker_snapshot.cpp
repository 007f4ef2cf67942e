// What a running worker has counted, as a copy that any thread may look at.
#include "worker.hpp"

namespace edgeos {

ChainSnapshot Worker::chain_snapshot(const Chain& chain, bool with_guest_counters) const {
  ChainSnapshot s{chain.spec().name, chain.counters, chain.retired(), 0, chain.activation_ns.quantile(0.5), chain.activation_ns.quantile(0.99),
                  chain.activation_ns.max(), {}, std::nullopt};
  if (const ParkingTimes* times = chain.parking_times.get())
    s.parking_times = ParkingTimesSnapshot{times->park.quantile(0.5), times->park.quantile(0.99), times->resume.quantile(0.5),
                                           times->resume.quantile(0.99)};
  for (size_t i = 0; i < chain.spec().stages.size(); i++) {
    const StageSpec& spec = chain.spec().stages[i];
    StageSnapshot stage{spec.name, chain.stage_counters[i].handled, chain.stage_counters[i].bursts, spec.pool->ready(), spec.pool->wanted(),
                        spec.pool->counters(), {}};
    const auto& layout = spec.pool->tmpl().layout().counters;
    for (size_t c = 0; with_guest_counters && c < layout.size(); c++)
      stage.counters.emplace_back(layout[c].name, chain.departed[i][c]);
    s.stages.push_back(std::move(stage));
  }
  return s;
}

Snapshot Worker::snapshot(bool with_guest_counters) {
  Snapshot s;
  call([&] {
    s.elapsed_ns = started_ns_ != 0 ? clock_.now_ns() - started_ns_ : 0;
    s.iterations = iterations_;
    if (dispatcher_ != nullptr) {
      s.in_flight = dispatcher_->held();
      s.received = dispatcher_->counters().received + (streams_ != nullptr ? streams_->received() : 0);
      s.dropped = dispatcher_->counters().dropped;
      s.flows = dispatcher_->flows();
    }
    for (const auto& chain : chains_) s.chains.push_back(chain_snapshot(*chain, with_guest_counters));
    if (gone_.activations > 0) s.chains.push_back(ChainSnapshot{"(gone)", gone_, true, 0, 0, 0, 0, {}, std::nullopt});
    for (Port* p : ports_) {
      s.ports.push_back({p->name(), p->counters(), p->queued(), p->mode(), p->problem(), retired_ports_[s.ports.size()], std::nullopt});
      if (const Listener* listener = p->as_listener()) s.ports.back().connections = listener->connections;
    }
    s.decisions = decisions_.counters();
    for (const auto& tenant : tenants_) s.tenants.push_back({tenant->name(), tenant->quotas(), tenant->counters});
    if (dispatcher_ == nullptr) return;
    dispatcher_->for_each_instance([&](const ChainInstance& instance) {
      s.in_flight += instance.in_flight;
      s.chains[instance.chain->spec().number].in_flight += instance.in_flight;
      auto& stages = s.chains[instance.chain->spec().number].stages;
      for (size_t i = 0; i < stages.size(); i++) {
        const Fwp* fwp = instance.fwps[i];
        for (size_t c = 0; fwp != nullptr && c < stages[i].counters.size(); c++)
          stages[i].counters[c].second += read_counter(*fwp, fwp->tmpl().layout().counters[c]);
      }
    });
  });
  return s;
}

std::vector<ClientSnapshot> Worker::clients(uint32_t chain) {
  std::vector<ClientSnapshot> all;
  call([&] {
    if (dispatcher_ == nullptr) return;
    const uint64_t now_ns = clock_.now_ns();
    dispatcher_->for_each_instance([&](const ChainInstance& instance) {
      if (instance.chain != chains_.at(chain).get()) return;
      ClientSnapshot client{instance.owner, now_ns - instance.last_used_ns, instance.in_flight, instance.flow_count,
                            instance.blocked, {}};
      for (size_t i = 0; i < instance.chain->spec().stages.size(); i++) {
        client.counters.emplace_back();
        const Fwp* fwp = instance.fwps[i];
        if (fwp == nullptr) continue;
        for (const CounterLayout& c : fwp->tmpl().layout().counters) client.counters[i].push_back(read_counter(*fwp, c));
      }
      all.push_back(std::move(client));
    });
  });
  return all;
}

}  // namespace edgeos
