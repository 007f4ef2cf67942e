#include "veth.hpp"

#include <linux/if_addr.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include "interface.hpp"

namespace edgeos {
namespace {

constexpr const char* kPrivilege = "needs CAP_NET_ADMIN: run as root";
constexpr uint8_t kNoAddresses = 1;  // IN6_ADDR_GEN_MODE_NONE

ifinfomsg about(int interface, unsigned flags = 0) {
  ifinfomsg message{};
  message.ifi_index = interface;
  message.ifi_flags = message.ifi_change = flags;
  return message;
}

void name(RouteRequest& request, const std::string& device, uint32_t mtu) {
  request.add(IFLA_IFNAME, std::string_view(device.c_str(), device.size() + 1));
  request.add(IFLA_MTU, mtu);
}

// A device without addresses sends nothing of its own. Where the kernel has no IPv6 there is nothing to be quietened.
void set_up_quietly(const std::string& device, const RouteSocket& socket, const std::string& end) {
  const int interface = static_cast<int>(if_nametoindex(end.c_str()));
  RouteRequest quiet(RTM_NEWLINK, NLM_F_ACK, about(interface));
  quiet.nest(IFLA_AF_SPEC, [&] { quiet.nest(AF_INET6, [&] { quiet.add(IFLA_INET6_ADDR_GEN_MODE, kNoAddresses); }); });
  if (socket.try_do(quiet) < 0 && errno != EAFNOSUPPORT)
    throw_errno(device, "cannot keep a veth pair from sending packets of its own", "needs Linux 3.17 or later");
  RouteRequest up(RTM_NEWLINK, NLM_F_ACK, about(interface, IFF_UP));
  if (socket.try_do(up) < 0) throw_errno(device, "cannot bring a veth pair up", kPrivilege);
}

}  // namespace

void make_quiet_pair(const std::string& device, const std::string& one, const std::string& other, uint32_t mtu) {
  const RouteSocket socket(device);
  RouteRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, about(0));
  name(request, one, mtu);
  request.nest(IFLA_LINKINFO, [&] {
    request.add(IFLA_INFO_KIND, "veth");
    request.nest(IFLA_INFO_DATA, [&] { request.nest(VETH_INFO_PEER, about(0), [&] { name(request, other, mtu); }); });
  });
  if (socket.try_do(request) < 0)
    throw_errno(device, "cannot make a veth pair", "needs CAP_NET_ADMIN and the kernel's veth driver: `modprobe veth`");
  for (const std::string& end : {one, other}) set_up_quietly(device, socket, end);
}

std::optional<uint64_t> dropped_sending(const RouteSocket& socket, int interface) {
  if_stats_msg header{};
  header.ifindex = static_cast<uint32_t>(interface);
  header.filter_mask = IFLA_STATS_FILTER_BIT(IFLA_STATS_LINK_64);
  RouteRequest request(RTM_GETSTATS, 0, header);
  std::vector<uint8_t> answer;
  if (socket.try_ask(request, answer) < 0 || answer.size() < sizeof header) return std::nullopt;
  const std::span<const uint8_t> found = find_attribute(std::span(answer).subspan(sizeof header), IFLA_STATS_LINK_64);
  uint64_t dropped = 0;
  constexpr size_t kAt = offsetof(rtnl_link_stats64, tx_dropped);
  if (found.size() < kAt + sizeof dropped) return std::nullopt;
  std::memcpy(&dropped, found.data() + kAt, sizeof dropped);
  return dropped;
}

std::optional<XdpMode> attached_mode(const std::string& device, int interface) {
  const RouteSocket socket(device);
  RouteRequest request(RTM_GETLINK, 0, about(interface));
  std::vector<uint8_t> answer;
  if (socket.try_ask(request, answer) < 0 || answer.size() < sizeof(ifinfomsg)) return std::nullopt;
  const auto xdp = find_attribute(std::span<const uint8_t>(answer).subspan(sizeof(ifinfomsg)), IFLA_XDP);
  const auto attached = find_attribute(xdp, IFLA_XDP_ATTACHED);
  if (attached.empty() || attached[0] == XDP_ATTACHED_NONE) return std::nullopt;
  return attached[0] == XDP_ATTACHED_SKB ? XdpMode::generic : XdpMode::native;
}

}  // namespace edgeos
