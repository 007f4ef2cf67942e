#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "../kernel/worker.hpp"
#include "bindings.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgeos {
namespace {

using DestinationValue = std::tuple<uint8_t, uint8_t, uint8_t, uint8_t>;  // kind, index, direction, in port
using RoutesValue = std::vector<DestinationValue>;                        // back, drop, out port 0, 1, …
using StageValue = std::tuple<std::string, uint32_t, RoutesValue, RoutesValue>;  // name, template, by direction
using EntryValue = std::tuple<uint32_t, uint8_t, uint8_t, uint8_t>;  // port, stage, direction, in port
using CounterValue = std::pair<std::string, uint32_t>;

// A chain whose stages name their templates by number, as Python does.
struct BoundChain {
  ChainSpec spec;
  std::vector<uint32_t> templates;
};

std::span<const uint8_t> view(const nb::bytes& bytes) { return {static_cast<const uint8_t*>(bytes.data()), bytes.size()}; }

void fill_routes(std::array<Destination, kRoutes>& routes, const RoutesValue& values) {
  if (values.size() > kRoutes) throw nb::value_error("too many out ports");
  for (size_t i = 0; i < values.size(); i++) {
    const auto [kind, index, direction, in_port] = values[i];
    routes[i] = Destination{static_cast<Destination::Kind>(kind), index, direction, in_port};
  }
}

void make_chain(BoundChain* self, const std::string& name, uint8_t when_full, uint8_t on_kill, uint64_t idle_timeout_ns,
                bool keep, uint64_t keep_memory, uint64_t keep_timeout_ns, uint32_t max_fwps, uint32_t new_clients, uint16_t domain, const std::vector<StageValue>& stages,
                const std::vector<EntryValue>& entries) {
  new (self) BoundChain{};
  ChainSpec& spec = self->spec;
  spec.name = name;
  spec.when_full = static_cast<WhenFull>(when_full);
  spec.on_kill = static_cast<OnKill>(on_kill);
  spec.idle_timeout_ns = idle_timeout_ns;
  spec.keep = keep;
  spec.keep_memory = keep_memory;
  spec.keep_timeout_ns = keep_timeout_ns;
  spec.max_fwps = max_fwps;
  spec.new_clients = new_clients;
  spec.domain = domain;
  for (const auto& [stage_name, tmpl, forward, reverse] : stages) {
    StageSpec stage;
    stage.name = stage_name;
    self->templates.push_back(tmpl);
    fill_routes(stage.routes[kForward], forward);
    fill_routes(stage.routes[kReverse], reverse);
    spec.stages.push_back(stage);
  }
  for (const auto& [port, stage, direction, in_port] : entries)
    spec.entries.at(port) = Entry{true, stage, direction, in_port};
}

std::vector<uint32_t> apply(Worker& worker, const std::vector<BoundChain>& chains, std::vector<uint32_t> retired_chains,
                            std::vector<uint32_t> retired_templates, std::vector<Rule> rules,
                            std::vector<uint64_t> removed_rules, std::vector<std::pair<uint64_t, uint64_t>> rule_orders,
                            std::vector<TenantSpec> tenants, std::vector<std::string> removed_tenants) {
  Change change{{}, std::move(retired_chains), std::move(retired_templates), std::move(rules), std::move(removed_rules),
                std::move(rule_orders), std::move(tenants), std::move(removed_tenants)};
  for (const BoundChain& chain : chains) {
    change.chains.push_back(chain.spec);
    for (size_t i = 0; i < chain.templates.size(); i++)
      change.chains.back().stages[i].pool = worker.pool(chain.templates[i]);
  }
  const nb::gil_scoped_release released;
  return worker.apply(std::move(change));
}

template <class Names, class Counts>
nb::dict named(const Names& names, const Counts& counts) {
  nb::dict d;
  for (size_t i = 0; i < counts.size(); i++)
    if (counts[i] != 0) d[nb::str(names[i].data(), names[i].size())] = counts[i];
  return d;
}

nb::dict stage_dict(const StageSnapshot& s) {
  nb::dict d, counters;
  for (const auto& [name, value] : s.counters) counters[name.c_str()] = value;
  d["name"] = s.name;
  d["handled"] = s.handled;
  d["bursts"] = s.bursts;
  d["ready"] = s.ready;
  d["ready_wanted"] = s.ready_wanted;
  d["created"] = s.pool.created;
  d["recycled"] = s.pool.recycled;
  d["made_on_path"] = s.pool.made_on_path;
  d["exhausted"] = s.pool.exhausted;
  d["counters"] = counters;
  return d;
}

nb::dict parking_dict(const ParkingCounters& c, const std::optional<ParkingTimesSnapshot>& times) {
  nb::dict d, refused;
  d["parked"] = c.parked;
  d["resumed"] = c.resumed;
  d["clients"] = c.clients;
  d["bytes"] = c.bytes;
  d["dropped"] = named(kUnkeptNames, c.dropped);
  if (c.too_large != 0) refused["too_large"] = c.too_large;
  if (c.connected != 0) refused["connected"] = c.connected;
  d["refused"] = refused;
  const ParkingTimesSnapshot t = times.value_or(ParkingTimesSnapshot{});
  d["park_p50_ns"] = t.park_p50_ns;
  d["park_p99_ns"] = t.park_p99_ns;
  d["resume_p50_ns"] = t.resume_p50_ns;
  d["resume_p99_ns"] = t.resume_p99_ns;
  return d;
}

nb::dict chain_dict(const ChainSnapshot& s) {
  const ChainCounters& c = s.counters;
  nb::dict d;
  nb::list stages;
  for (const StageSnapshot& stage : s.stages) stages.append(stage_dict(stage));
  d["name"] = s.name;
  d["retired"] = s.retired;
  d["received"] = c.received;
  d["emitted"] = c.emitted;
  d["emit_refused"] = c.emit_refused;
  d["sent"] = c.sent;
  d["consumed"] = c.consumed;
  d["in_flight"] = s.in_flight;
  d["dropped"] = named(kDropNames, c.dropped);
  d["kills"] = named(kKillNames, c.kills);
  d["activations"] = c.activations;
  d["activation_p50_ns"] = s.activation_p50_ns;
  d["activation_p99_ns"] = s.activation_p99_ns;
  d["activation_max_ns"] = s.activation_max_ns;
  d["live"] = c.live;
  d["peak"] = c.peak;
  d["evicted"] = c.evicted;
  d["expired"] = c.expired;
  d["parking"] = parking_dict(c.parking, s.parking_times);
  d["stages"] = stages;
  return d;
}

nb::dict port_dict(const PortSnapshot& s) {
  nb::dict d;
  d["name"] = s.name;
  d["received"] = s.counters.received;
  d["received_bytes"] = s.counters.received_bytes;
  d["sent"] = s.counters.sent;
  d["sent_bytes"] = s.counters.sent_bytes;
  d["send_dropped"] = s.counters.send_dropped;
  d["receive_overrun"] = s.counters.receive_overrun;
  d["queued"] = s.queued;
  d["mode"] = s.mode;
  d["problem"] = s.problem;
  d["retired"] = s.retired;
  if (s.connections) {
    d["connections"] = s.connections->connections;
    d["accepted"] = s.connections->accepted;
    d["refused"] = named(kRefusalNames, s.connections->refused);
    d["ended"] = named(kEndingNames, s.connections->ended);
  }
  return d;
}

nb::dict tenant_dict(const TenantSnapshot& s) {
  nb::dict d;
  d["name"] = s.name;
  d["received"] = s.counters.received;
  d["received_bytes"] = s.counters.received_bytes;
  d["copied_bytes"] = s.counters.copied_bytes;
  d["cpu_ns"] = s.counters.cpu_ns;
  d["memory"] = s.counters.memory;
  d["parked"] = s.counters.parked;
  d["fwps"] = s.counters.fwps;
  d["clients"] = s.counters.clients;
  d["admitted"] = s.counters.admitted;
  d["refused"] = named(kDropNames, s.counters.refused);
  d["killed"] = s.counters.killed;
  return d;
}

nb::dict snapshot_dict(const Snapshot& s) {
  nb::dict d;
  nb::list chains, ports, tenants;
  for (const ChainSnapshot& chain : s.chains)
    if (!chain.name.empty()) chains.append(chain_dict(chain));
  for (const PortSnapshot& port : s.ports) ports.append(port_dict(port));
  d["elapsed_ns"] = s.elapsed_ns;
  d["iterations"] = s.iterations;
  d["received"] = s.received;
  d["in_flight"] = s.in_flight;
  d["flows"] = s.flows;
  d["dropped"] = named(kDropNames, s.dropped);
  d["chains"] = chains;
  for (const TenantSnapshot& tenant : s.tenants) tenants.append(tenant_dict(tenant));
  d["ports"] = ports;
  d["tenants"] = tenants;
  nb::dict unmatched;
  unmatched["asked"] = s.decisions.asked;
  unmatched["answered"] = s.decisions.answered;
  unmatched["failed"] = s.decisions.failed;
  unmatched["defaulted"] = s.decisions.defaulted;
  unmatched["late"] = s.decisions.late;
  unmatched["turned_away"] = s.decisions.turned_away;
  unmatched["waiting"] = s.decisions.waiting;
  unmatched["kept"] = s.decisions.kept;
  d["unmatched"] = unmatched;
  return d;
}

nb::dict owner_dict(const FlowKey& owner) {
  nb::dict d;
  const auto address = owner.a.bytes();
  d["address"] = nb::bytes(address.data(), address.size());
  d["is_ip"] = owner.ethertype() == 0;
  d["vlan"] = owner.vlan();
  return d;
}

nb::dict question_dict(const Question& q) {
  nb::dict d = owner_dict(q.client);
  const auto peer = q.peer.bytes();
  d["id"] = q.id;
  d["peer"] = nb::bytes(peer.data(), peer.size());
  d["client_port"] = q.client_port;
  d["peer_port"] = q.peer_port;
  d["port"] = q.port;
  d["protocol"] = q.protocol;
  d["ip_version"] = q.ip_version;
  d["server_name"] = q.server_name;
  return d;
}

nb::dict client_dict(const ClientSnapshot& s) {
  nb::dict d = owner_dict(s.owner);
  d["idle_ns"] = s.idle_ns;
  d["in_flight"] = s.in_flight;
  d["flows"] = s.flows;
  d["blocked"] = s.blocked;
  d["counters"] = s.counters;
  return d;
}

std::optional<Address> address_from(const std::optional<nb::bytes>& bytes) {
  if (!bytes) return std::nullopt;
  std::array<uint8_t, 16> address{};
  if (bytes->size() != address.size()) throw nb::value_error("an address is 16 bytes");
  std::memcpy(address.data(), bytes->data(), address.size());
  return std::bit_cast<Address>(address);
}

nb::dict answer_dict(const HandlerAnswer& s) {
  nb::dict d = owner_dict(s.owner);
  d["status"] = static_cast<uint8_t>(s.status);
  d["cause"] = nb::str(kKillNames[size_t(s.cause)].data(), kKillNames[size_t(s.cause)].size());
  d["value"] = nb::bytes(s.value.data(), s.value.size());
  return d;
}

}  // namespace

void bind_worker(nb::module_& m) {
  nb::class_<EngineSettings>(m, "EngineSettings")
      .def("__init__",
           [](EngineSettings* self, uint32_t fwps, uint64_t memory_max, bool compact, bool copy_on_write,
              uint64_t keep_resident) {
             new (self) EngineSettings{fwps, memory_max, compact, copy_on_write, keep_resident};
           },
           nb::kw_only(), "fwps"_a, "memory_max"_a, "compact"_a, "copy_on_write"_a, "keep_resident"_a)
      .def_prop_ro("code_key", &EngineSettings::code_key)
      .def_ro("memory_max", &EngineSettings::memory_max);

  m.def(
      "hot_bytes",
      [](uint32_t slot_size, uint32_t messages, uint32_t verdicts, uint32_t data, uint32_t stack,
         const std::vector<uint32_t>& counters, uint64_t most) {
        Layout layout{0, slot_size, 0, messages, verdicts, data, 0, stack, {}};
        for (const uint32_t address : counters) layout.counters.push_back({{}, address});
        return hot_bytes(layout, most);
      },
      nb::kw_only(), "slot_size"_a, "messages"_a, "verdicts"_a, "data"_a, "stack"_a, "counters"_a,
      "most"_a);

  nb::class_<BoundChain>(m, "ChainSpec")
      .def("__init__", &make_chain, "name"_a, nb::kw_only(), "when_full"_a, "on_kill"_a, "idle_timeout_ns"_a, "keep"_a = false,
           "keep_memory"_a = 0, "keep_timeout_ns"_a = 0, "max_fwps"_a,
           "new_clients"_a, "domain"_a, "stages"_a, "entries"_a);

  nb::class_<TenantSpec>(m, "TenantSpec")
      .def("__init__",
           [](TenantSpec* self, const std::string& name, uint64_t cpu_ns, uint64_t memory, uint64_t fwps, uint64_t clients,
              uint64_t copied_bytes, uint64_t messages, uint64_t new_clients) {
             new (self) TenantSpec{name, Quotas{cpu_ns, memory, fwps, clients, copied_bytes, messages, new_clients}};
           },
           "name"_a, nb::kw_only(), "cpu_ns"_a, "memory"_a, "fwps"_a, "clients"_a, "copied_bytes"_a, "messages"_a,
           "new_clients"_a);

  using WithoutGil = nb::call_guard<nb::gil_scoped_release>;
  nb::class_<Worker>(m, "Worker")
      .def("__init__",
           [](Worker* self, const EngineSettings& engine, bool dedicated_mover, uint8_t wait, uint32_t max_flows) {
             new (self) Worker(engine, {dedicated_mover, static_cast<Wait>(wait), max_flows});
           },
           "engine"_a, nb::kw_only(), "dedicated_mover"_a = false, "wait"_a = 0, "max_flows"_a = 65536)
      .def("compile",
           [](Worker& self, const nb::bytes& wasm) {
             const std::vector<uint8_t> code = self.engine().compile(view(wasm));
             return nb::bytes(code.data(), code.size());
           },
           "wasm"_a)
      .def("add_port", [](Worker& self, Port& port) { self.add_port(&port); }, "port"_a, nb::keep_alive<1, 2>())
      .def("add_listener", [](Worker& self, Port& port) { return self.add_listener(&port); }, "port"_a, nb::keep_alive<1, 2>(),
           nb::call_guard<nb::gil_scoped_release>())
      .def("change_listeners",
           [](Worker& self, const std::vector<uint32_t>& opened, const std::vector<uint32_t>& closed) {
             const nb::gil_scoped_release released;
             self.change_listeners(opened, closed);
           },
           nb::kw_only(), "opened"_a, "closed"_a)
      .def("add_template",
           [](Worker& self, const std::string& name, const nb::bytes& code, uint32_t slots, uint32_t slot_size,
              uint32_t slot_stride, uint32_t messages, uint32_t verdicts, uint32_t data, uint64_t memory, uint32_t stack,
              const std::vector<CounterValue>& counters, uint64_t budget_ns, uint32_t ready_low, uint32_t ready_high, uint32_t ready_max,
              bool timer, bool clock, bool random, const std::vector<uint32_t>& connects) {
             Layout layout{slots, slot_size, slot_stride, messages, verdicts, data, memory, stack, {}};
             for (const auto& [counter, address] : counters) layout.counters.push_back({counter, address});
             auto tmpl = std::make_unique<FwpTemplate>(self.engine(), name, view(code), std::move(layout), budget_ns,
                                                       Grants{timer, clock, random, connects});
             const nb::gil_scoped_release released;
             return self.add_template(std::move(tmpl), ready_low, ready_high, ready_max);
           },
           "name"_a, "code"_a, nb::kw_only(), "slots"_a, "slot_size"_a, "slot_stride"_a, "messages"_a, "verdicts"_a,
           "data"_a, "memory"_a, "stack"_a, "counters"_a, "budget_ns"_a, "ready_low"_a, "ready_high"_a, "ready_max"_a = 0, "timer"_a = false,
           "clock"_a = false, "random"_a = false, "connects"_a = std::vector<uint32_t>{})
      .def("add_upstream",
           [](Worker& self, const std::string& kind, const std::string& address, uint16_t port) {
             self.add_upstream({listener_kind(kind), address, port});
           },
           "kind"_a, "address"_a, "port"_a = 0)
      .def("apply", &apply, nb::kw_only(), "chains"_a, "retired_chains"_a, "retired_templates"_a, "rules"_a,
           "removed_rules"_a, "rule_orders"_a, "tenants"_a = std::vector<TenantSpec>{},
           "removed_tenants"_a = std::vector<std::string>{})
      .def("set_decisions",
           [](Worker& self, uint64_t deadline_ns, uint64_t keep_ns, uint32_t clients_max, uint32_t waiting_max, const Rule& otherwise) {
             self.set_decisions(DecisionSettings{deadline_ns, keep_ns, clients_max, waiting_max, otherwise, nullptr});
           },
           nb::kw_only(), "deadline_ns"_a, "keep_ns"_a, "clients_max"_a, "waiting_max"_a, "otherwise"_a, WithoutGil())
      .def("take_questions",
           [](Worker& self, uint64_t timeout_ns) {
             std::vector<Question> questions;
             {
               const nb::gil_scoped_release released;
               questions = self.take_questions(timeout_ns);
             }
             nb::list all;
             for (const Question& question : questions) all.append(question_dict(question));
             return all;
           },
           "timeout_ns"_a)
      .def("answer", [](Worker& self, uint64_t question, const std::optional<Rule>& rule) { self.answer(question, rule); },
           "question"_a, "rule"_a.none(), WithoutGil())
      .def("run_once", [](Worker& self) { return self.run_once(); }, WithoutGil())
      .def("start", [](Worker& self) { self.start(); })
      .def("stop", [](Worker& self) { self.stop(); }, WithoutGil())
      .def("wait_finished",
           [](Worker& self, uint64_t timeout_ns) { return self.wait_finished(timeout_ns); }, "timeout_ns"_a,
           WithoutGil())
      .def_prop_ro("failure", [](Worker& self) { return self.failure(); })
      .def("set_fake_time", [](Worker& self, uint64_t ns) { self.set_fake_time(ns); }, "ns"_a)
      .def("snapshot",
           [](Worker& self, bool with_guest_counters) {
             Snapshot s;
             {
               const nb::gil_scoped_release released;
               s = self.snapshot(with_guest_counters);
             }
             return snapshot_dict(s);
           },
           "with_guest_counters"_a = true)
      .def("drain", [](Worker& self) { self.drain(); }, WithoutGil())
      .def("stop_listening", [](Worker& self) { self.stop_listening(); }, WithoutGil())
      .def("close_chain", [](Worker& self, uint32_t chain) { self.close_chain(chain); }, "chain"_a, WithoutGil())
      .def("clients",
           [](Worker& self, uint32_t chain) {
             std::vector<ClientSnapshot> clients;
             {
               const nb::gil_scoped_release released;
               clients = self.clients(chain);
             }
             nb::list all;
             for (const ClientSnapshot& client : clients) all.append(client_dict(client));
             return all;
           },
           "chain"_a)
      .def("access",
           [](Worker& self, uint32_t chain, uint8_t stage, const std::optional<nb::bytes>& client, bool write,
              const nb::bytes& name, const nb::bytes& value) {
             const HandlerCall request{write, {name.c_str(), name.size()}, {value.c_str(), value.size()}, HandlerStatus::done};
             const std::optional<Address> address = address_from(client);
             std::vector<HandlerAnswer> answers;
             {
               const nb::gil_scoped_release released;
               answers = self.access(chain, stage, address, request);
             }
             nb::list all;
             for (const HandlerAnswer& answer : answers) all.append(answer_dict(answer));
             return all;
           },
           "chain"_a, "stage"_a, "client"_a.none(), nb::kw_only(), "write"_a, "name"_a, "value"_a);
}

}  // namespace edgeos
