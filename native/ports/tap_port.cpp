#include "tap_port.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "bpf.hpp"
#include "steering.hpp"

namespace edgeos {
namespace {

constexpr const char* kPrivilege = "needs CAP_NET_ADMIN: run as root or in `unshare -Urn`";

int open_tun(const std::string& device) {
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) throw_errno(device, "cannot open /dev/net/tun", "load it with `modprobe tun` and allow access to it");
  return fd;
}

const char* attach_fix(int error, bool shared) {
  if (error == EINVAL && shared) return "an interface of that name exists and is no TAP device of several queues: choose another name";
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

// Frames carry virtio headers.
Descriptor attached_queue(const std::string& device, bool offload, bool shared) {
  Descriptor queue(open_tun(device));
  ifreq request = interface_request(device);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (shared ? IFF_MULTI_QUEUE : 0));
  if (ioctl(queue.get(), TUNSETIFF, &request) < 0) throw_errno(device, "cannot attach to the device", attach_fix(errno, shared));
  const int header_bytes = sizeof(VnetHeader);
  const unsigned long offloads = offload ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0;
  if (ioctl(queue.get(), TUNSETVNETHDRSZ, &header_bytes) < 0 || ioctl(queue.get(), TUNSETOFFLOAD, offloads) < 0)
    throw_errno(device, "cannot set offloads", "needs Linux 2.6.32 or later; open the port without offloads");
  return queue;
}

int own_or_copy(const std::string& device, bool offload, int fd) {
  if (fd < 0) return attached_queue(device, offload, false).release();
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw_errno(device, "cannot take over the queue", "raise the limit of open files, `ulimit -n`");
  return copy;
}

}  // namespace

std::vector<int> open_tap_queues(const std::string& device, uint32_t queues, bool by_destination) {
  std::vector<Descriptor> all;
  while (all.size() < queues) all.push_back(attached_queue(device, true, queues > 1));
  if (queues > 1) {
    const Descriptor program(load_steering_program(device, to_extended(steering_program(by_destination, queues))));
    const int fd = program.get();
    if (ioctl(all.front().get(), TUNSETSTEERINGEBPF, &fd) < 0)
      throw_errno(device, "cannot steer packets to workers", "needs Linux 4.16 or later; or run one worker");
  }
  bring_up(device, interface_request(device));
  std::vector<int> descriptors;
  for (Descriptor& queue : all) descriptors.push_back(queue.release());
  return descriptors;
}

TapPort::TapPort(std::string name, const std::string& device, bool offload, int fd)
    : DevicePort(std::move(name), device, own_or_copy(device, offload, fd)) {
  if (fd < 0) bring_up(device, interface_request(device));
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
