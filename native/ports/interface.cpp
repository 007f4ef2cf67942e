#include "interface.hpp"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <stdexcept>

#include "descriptor.hpp"

namespace edgeos {
namespace {

int open_control(const std::string& device) {
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw_errno(device, "cannot open a socket", "raise the limit of open files: `ulimit -n`");
  return fd;
}

}  // namespace

ifreq interface_request(const std::string& device) {
  ifreq request{};
  if (device.empty() || device.size() >= IFNAMSIZ)
    throw std::runtime_error("\"" + device + "\": an interface name has 1 to 15 characters");
  device.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

Interface find_interface(const std::string& device) {
  const char* fix = "`ip link` lists the interfaces of this network namespace";
  ifreq request = interface_request(device);
  const Descriptor control(open_control(device));
  const int fd = control.get();
  if (ioctl(fd, SIOCGIFFLAGS, &request) < 0) throw_errno(device, "cannot find the interface", fix);
  if ((request.ifr_flags & IFF_UP) == 0)
    throw std::runtime_error(device + ": the interface is down (bring it up with `ip link set " + device + " up`)");
  if (ioctl(fd, SIOCGIFHWADDR, &request) < 0) throw_errno(device, "cannot read the link type", fix);
  const unsigned link = request.ifr_hwaddr.sa_family;
  if (link != ARPHRD_ETHER && link != ARPHRD_LOOPBACK)
    throw std::runtime_error(device + ": link type " + std::to_string(link) + " (choose an Ethernet interface)");
  Interface found{};
  if (ioctl(fd, SIOCGIFMTU, &request) < 0) throw_errno(device, "cannot read the interface's MTU", fix);
  found.mtu = static_cast<uint32_t>(request.ifr_mtu);
  if (ioctl(fd, SIOCGIFINDEX, &request) < 0) throw_errno(device, "cannot read the interface's index", fix);
  found.index = request.ifr_ifindex;
  return found;
}

QueueCounts count_queues(const std::string& device) {
  const Descriptor control(open_control(device));
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  ifreq request = interface_request(device);
  request.ifr_data = reinterpret_cast<char*>(&channels);
  if (ioctl(control.get(), SIOCETHTOOL, &request) < 0) return {};
  return {std::max(1u, channels.rx_count + channels.combined_count), std::max(1u, channels.tx_count + channels.combined_count)};
}

void throw_no_queue(const std::string& device, int queue, uint32_t queues) {
  throw std::runtime_error(device + ": there is no queue " + std::to_string(queue) + " (it has " + std::to_string(queues) +
                           ", counted from 0: `ethtool -l " + device + "`)");
}

}  // namespace edgeos
