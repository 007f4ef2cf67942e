#include "xdp_link.hpp"

#include <linux/if_link.h>

#include <chrono>
#include <thread>

#include "bpf.hpp"

namespace edgeos {
namespace {

// What another process has attached goes with it, a little later.
constexpr int kAttempts = 10;
constexpr std::chrono::milliseconds kPause{10};

const char* fix_for(int error) {
  if (error == EPERM || error == EACCES) return "needs CAP_NET_ADMIN, and not in a user namespace: run as root";
  if (error == EBUSY || error == EEXIST) return "another XDP program is attached: `ip link show` names it; stop its owner";
  if (error == EINVAL) return "AF_XDP needs Linux 5.10 or later: use kind = \"afpacket\"";
  return "this device takes no XDP program: use kind = \"afpacket\"";
}

int try_attach(int interface, int program, XdpMode mode) {
  const uint32_t flags = mode == XdpMode::native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
  for (int attempt = 1;; attempt++) {
    const int fd = try_xdp_link(program, interface, flags);
    if (fd >= 0 || errno != EBUSY || attempt == kAttempts) return fd;
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

const char* to_text(XdpMode mode) { return mode == XdpMode::native ? "native" : "generic"; }

XdpLink attach_xdp(const std::string& device, int interface, int program) {
  Descriptor native(try_attach(interface, program, XdpMode::native));
  if (native.get() >= 0) return {std::move(native), XdpMode::native};
  if (errno != EOPNOTSUPP && errno != ERANGE && errno != EINVAL) throw_errno(device, "cannot attach the XDP program", fix_for(errno));
  return {attach_xdp(device, interface, program, XdpMode::generic), XdpMode::generic};
}

Descriptor attach_xdp(const std::string& device, int interface, int program, XdpMode mode) {
  Descriptor fd(try_attach(interface, program, mode));
  if (fd.get() < 0) throw_errno(device, "cannot attach the XDP program", fix_for(errno));
  return fd;
}

}  // namespace edgeos
