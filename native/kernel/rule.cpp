#include "rule.hpp"

#include <cstring>

#include "../ports/client_hello.hpp"

namespace edgeos {
namespace {

template <class Wanted, class Found>
bool allows(const std::optional<Wanted>& wanted, const Found& found) {
  return !wanted || *wanted == found;
}

bool allows(const std::optional<Prefix>& wanted, const Address& found) { return !wanted || wanted->contains(found); }

// Later fragments carry no ports; a rule on ports is for whole datagrams and first fragments.
bool ports_match(const Rule& r, const FlowView& f) {
  if (!r.source_ports && !r.destination_ports && !r.any_port) return true;
  if (f.packet.later_fragment) return false;
  return (!r.source_ports || r.source_ports->contains(f.client_port())) &&
         (!r.destination_ports || r.destination_ports->contains(f.peer_port())) &&
         (!r.any_port || r.any_port->contains(f.client_port()) || r.any_port->contains(f.peer_port()));
}

}  // namespace

bool Prefix::contains(const Address& candidate) const {
  const std::array<uint8_t, 16> a = candidate.bytes();
  const size_t whole = bits / 8u;
  if (std::memcmp(address.data(), a.data(), whole) != 0) return false;
  const unsigned rest = bits % 8u;
  return rest == 0 || (address[whole] ^ a[whole]) >> (8 - rest) == 0;
}

bool matches(const Rule& r, const FlowView& f) {
  const ParsedPacket& p = f.packet;
  const bool is_ip = p.ip_version != 0;
  const auto vlan = static_cast<uint16_t>(p.key.vlan());  // id + 1 of the outer tag
  const uint16_t ethertype = p.ip_version == 4 ? 0x0800 : p.ip_version == 6 ? 0x86dd : p.key.ethertype();
  return allows(r.ip, is_ip) && (r.ip_version == 0 || r.ip_version == p.ip_version) && allows(r.ethertype, ethertype) &&
         (!r.protocol || (is_ip && *r.protocol == p.protocol)) &&
         (!r.vlan || vlan == *r.vlan + 1) && allows(r.port, f.port) &&
         ((!r.source && !r.destination) || is_ip) && allows(r.source, f.client()) && allows(r.destination, f.peer()) &&
         ports_match(r, f) && (r.server_name.empty() || server_name_matches(r.server_name, f.server_name));
}

}  // namespace edgeos
