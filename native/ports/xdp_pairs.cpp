#include "xdp_pairs.hpp"

#include <net/if.h>

#include "bpf.hpp"
#include "interface.hpp"
#include "network_space.hpp"
#include "umem.hpp"
#include "veth.hpp"

namespace edgeos {
namespace {

// With a program in native mode veth takes packets that fit a page; of more than that it loses none in generic mode, where
// super-frames come too, so that the socket counts what is too large for it.
constexpr uint32_t kNativeMtu = 3400, kGenericMtu = 65535;
constexpr uint32_t kTagsBytes = 2 * 4;

Descriptor make_pair(const std::string& device, int map, uint32_t worker, uint32_t mtu) {
  return make_space(device, [&] {
    make_quiet_pair(device, XdpPairs::kEntry, XdpPairs::kExit, mtu);
    set_map_device(device, map, worker, static_cast<int>(if_nametoindex(XdpPairs::kEntry)));
  });
}

XdpLink attach(const std::string& device, const Interface& interface, int program) {
  if (interface.mtu + kTagsBytes <= kNativeMtu) return attach_xdp(device, interface.index, program);
  return {attach_xdp(device, interface.index, program, XdpMode::generic), XdpMode::generic};
}

}  // namespace

XdpPairs open_xdp_pairs(const std::string& device, uint32_t workers, bool by_destination, int queue, const std::vector<Rule>& take) {
  const Interface interface = find_interface(device);
  Umem::size_to_receive(device, interface.mtu);  // throws if workers could not
  const QueueCounts counts = count_queues(device);
  if (queue >= static_cast<int>(counts.receive)) throw_no_queue(device, queue, counts.receive);
  const Descriptor map(make_device_map(device, workers));
  const Descriptor program(load_xdp_program(device, make_spreading_program(take, {map.get(), workers, by_destination, queue})));
  XdpLink link = attach(device, interface, program.get());  // what it takes has nowhere to go yet, and is dropped
  XdpPairs pairs{std::move(link.fd), {}};
  const uint32_t mtu = link.mode == XdpMode::native ? kNativeMtu : kGenericMtu;
  for (uint32_t worker = 0; worker < workers; worker++) pairs.spaces.push_back(make_pair(device, map.get(), worker, mtu));
  return pairs;
}

}  // namespace edgeos
