#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include "../kernel/rule_table.hpp"
#include "bindings.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgeos {
namespace {

using PrefixValue = std::pair<nb::bytes, uint8_t>;  // 16 bytes, bits
using RangeValue = std::pair<uint16_t, uint16_t>;

std::optional<Prefix> prefix_from(const std::optional<PrefixValue>& value) {
  if (!value) return std::nullopt;
  Prefix prefix;
  if (value->first.size() != prefix.address.size() || value->second > 128)
    throw nb::value_error("a prefix is 16 bytes and 0 to 128 bits");
  std::memcpy(prefix.address.data(), value->first.data(), prefix.address.size());
  prefix.bits = value->second;
  return prefix;
}

std::optional<PortRange> range_from(const std::optional<RangeValue>& value) {
  return value ? std::optional(PortRange{value->first, value->second}) : std::nullopt;
}

}  // namespace

void bind_rule(nb::module_& m) {
  nb::class_<Rule>(m, "Rule")
      .def("__init__",
           [](Rule* self, uint64_t id, int32_t priority, uint64_t order, int32_t action, uint8_t isolation,
              uint32_t max_clients, std::optional<bool> ip, uint8_t ip_version, std::optional<uint16_t> ethertype,
              std::optional<uint8_t> protocol, const std::optional<PrefixValue>& source,
              const std::optional<PrefixValue>& destination, const std::optional<RangeValue>& source_ports,
              const std::optional<RangeValue>& destination_ports, const std::optional<RangeValue>& any_port,
              std::optional<uint16_t> vlan, std::optional<uint16_t> port, uint32_t new_clients, std::string tenant,
              std::string server_name) {
             new (self) Rule{id, priority, order, ip, ip_version, ethertype, protocol, prefix_from(source), prefix_from(destination),
                             range_from(source_ports), range_from(destination_ports), range_from(any_port), vlan, port, std::move(server_name),
                             action, static_cast<Isolation>(isolation), max_clients, new_clients, std::move(tenant)};
           },
           nb::kw_only(), "id"_a, "priority"_a, "order"_a, "action"_a, "isolation"_a, "max_clients"_a, "ip"_a = nb::none(), "ip_version"_a = 0, "ethertype"_a = nb::none(),
           "protocol"_a = nb::none(), "source"_a = nb::none(), "destination"_a = nb::none(),
           "source_ports"_a = nb::none(), "destination_ports"_a = nb::none(), "any_port"_a = nb::none(),
           "vlan"_a = nb::none(), "port"_a = nb::none(), "new_clients"_a = 0, "tenant"_a = "",
           "server_name"_a = "")
      .def_ro("id", &Rule::id)
      .def_ro("priority", &Rule::priority)
      .def_ro("order", &Rule::order)
      .def_ro("action", &Rule::action);

  // For tests of the order alone.
  nb::class_<RuleTable>(m, "RuleTable")
      .def(nb::init<>())
      .def("add", [](RuleTable& self, const Rule& rule) { self.add(rule); }, "rule"_a)
      .def("remove", &RuleTable::remove, "id"_a)
      .def_prop_ro("ids", [](const RuleTable& self) {
        nb::list ids;
        for (const auto& entry : self.entries()) ids.append(entry->rule.id);
        return ids;
      });
}

}  // namespace edgeos
