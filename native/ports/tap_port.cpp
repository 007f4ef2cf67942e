#include "tap_port.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

namespace edgeos {
namespace {

constexpr const char* kPrivilege = "needs CAP_NET_ADMIN: run as root or in `unshare -Urn`";

int open_tun(const std::string& device) {
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) throw_errno(device, "cannot open /dev/net/tun", "load it with `modprobe tun` and allow access to it");
  return fd;
}

const char* attach_fix(int error) {
  if (error == EBUSY) return "another process uses this device: stop it or choose another name";
  if (error == EINVAL) return "an interface of that name exists and is no TAP device: choose another name";
  return kPrivilege;
}

void bring_up(const std::string& device, ifreq request) {
  const Descriptor control(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (ioctl(control.get(), SIOCGIFFLAGS, &request) == 0) {
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (ioctl(control.get(), SIOCSIFFLAGS, &request) == 0) return;
  }
  throw_errno(device, "cannot bring the device up", kPrivilege);
}

}  // namespace

TapPort::TapPort(std::string name, const std::string& device, bool offload)
    : DevicePort(std::move(name), device, open_tun(device)) {
  ifreq request = interface_request(device);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(fd_.get(), TUNSETIFF, &request) < 0) throw_errno(device, "cannot attach to the device", attach_fix(errno));
  const int header_bytes = sizeof(VnetHeader);
  const unsigned long offloads = offload ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0;
  if (ioctl(fd_.get(), TUNSETVNETHDRSZ, &header_bytes) < 0 || ioctl(fd_.get(), TUNSETOFFLOAD, offloads) < 0)
    throw_errno(device, "cannot set offloads", "needs Linux 2.6.32 or later; open the port without offloads");
  bring_up(device, request);
}

// A removed device is readable for ever, with an error. In its place comes a descriptor that never is, under the same
// number, so that whoever waits for it sleeps.
void TapPort::go_silent() {
  gone_ = true;
  const Descriptor never(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (never.get() >= 0) dup3(never.get(), fd_.get(), O_CLOEXEC);
}

void TapPort::fill_burst(uint32_t frames_max) {
  for (uint32_t i = 0; i < frames_max && !gone_; i++) {
    const ssize_t bytes = read(fd_.get(), burst_.slot(i), OffloadBurst::kReadBytesMax);
    if (bytes >= 0) {
      burst_.add(i, static_cast<uint32_t>(bytes));
    } else if (errno == EAGAIN || errno == EINTR) {
      return;
    } else {
      note("the device is gone: " + errno_text(errno));
      go_silent();
    }
  }
}

bool TapPort::send(const uint8_t* data, uint32_t len, uint64_t) {
  if (gone_) return false;
  VnetHeader complete;  // nothing is left to the kernel
  const iovec parts[] = {{&complete, sizeof complete}, {const_cast<uint8_t*>(data), len}};
  if (writev(fd_.get(), parts, 2) >= 0) {
    counters_.sent++;
    counters_.sent_bytes += len;
  } else if (errno == EAGAIN || errno == EINTR) {
    return false;
  } else {
    drop_refused();
  }
  return true;
}

}  // namespace edgeos
