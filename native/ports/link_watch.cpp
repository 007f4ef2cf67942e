#include "link_watch.hpp"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace edgeos {
namespace {

int open_netlink(const std::string& device) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (fd >= 0 && bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const int error = errno;
  if (fd >= 0) close(fd);
  errno = error;
  throw_errno(device, "cannot watch the interface by netlink", "raise the limit of open files: `ulimit -n`");
}

}  // namespace

LinkWatch::LinkWatch(const std::string& device, int interface, uint32_t mtu)
    : fd_(open_netlink(device)), interface_(interface), mtu_(mtu) {}

void LinkWatch::look() {
  bool changed = false;
  char notice[8192];  // its content does not matter, and neither does a part of it that is cut off
  while (recv(fd(), notice, sizeof notice, MSG_DONTWAIT) >= 0 || errno == ENOBUFS || errno == EINTR) changed = true;
  if (changed && state_ != LinkState::gone) ask();
}

void LinkWatch::ask() {
  ifreq request{};
  request.ifr_ifindex = interface_;
  if (ioctl(fd(), SIOCGIFNAME, &request) < 0 || ioctl(fd(), SIOCGIFFLAGS, &request) < 0) {
    state_ = LinkState::gone;
    return;
  }
  state_ = (request.ifr_flags & IFF_UP) != 0 ? LinkState::up : LinkState::down;
  if (ioctl(fd(), SIOCGIFMTU, &request) == 0) mtu_ = static_cast<uint32_t>(request.ifr_mtu);
}

}  // namespace edgeos
