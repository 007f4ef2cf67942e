#include "xdp_pair_port.hpp"

#include <net/if.h>
#include <sys/epoll.h>

#include <utility>

#include "../kernel/clock.hpp"
#include "network_space.hpp"
#include "packet_socket.hpp"
#include "veth.hpp"
#include "xdp_pairs.hpp"

namespace edgeos {
namespace {

constexpr uint64_t kLookEveryNs = 1'000'000, kCountEveryNs = 100'000'000;

}  // namespace

XdpPairPort::XdpPairPort(std::string name, const std::string& device, int space, bool everything)
    : LivePort(std::move(name), device),
      interface_(find_interface(device)),
      sending_(open_sending_socket(device, everything)),
      wait_fd_(epoll_create1(EPOLL_CLOEXEC)),
      sender_(sending_.get()),
      watch_(device, interface_.index, interface_.mtu),
      umem_(std::make_shared<Umem>(Umem::size_to_receive(device, interface_.mtu))) {
  const std::optional<XdpMode> mode = attached_mode(device, interface_.index);
  if (!mode)
    throw std::runtime_error(device + ": the program that passes packets on to workers is gone (was the device replaced? restart the node)");
  in_space(device, space, [&] { open_pair(*mode); });
  mode_ = std::string(to_text(*mode)) + ", copy, through a pair for each worker";
  listen();
}

// The socket's program is attached in the mode of the device's: veth hands over between native ones, or between generic ones.
void XdpPairPort::open_pair(XdpMode mode) {
  pair_ = std::make_unique<RouteSocket>(device_);
  entry_ = static_cast<int>(if_nametoindex(XdpPairs::kEntry));
  dropped_ = dropped_sending(*pair_, entry_).value_or(0);
  const int exit = static_cast<int>(if_nametoindex(XdpPairs::kExit));
  intake_ = std::make_unique<XdpIntake>(XdpPairs::kExit, exit, umem_, XdpIntake::Options{0, {}, mode, false});
}

void XdpPairPort::listen() {
  for (const int fd : {intake_->sockets().front()->fd(), watch_.fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ctl(wait_fd_.get(), EPOLL_CTL_ADD, fd, &event) < 0)
      throw_errno(device_, "cannot wait for packets", "raise the limit of open files: `ulimit -n`");
  }
}

uint32_t XdpPairPort::receive(Packet* out, uint32_t max) {
  const uint64_t now_ns = wall_clock_ns();
  if (now_ns - looked_ns_ >= kLookEveryNs) look(now_ns);
  return intake_->receive(out, max, now_ns, counters_);
}

void XdpPairPort::flush() {
  if (const int error = sender_.flush(counters_); error != 0) note_refused(error);
}

void XdpPairPort::look(uint64_t now_ns) {
  looked_ns_ = now_ns;
  watch_.look();
  if (watch_.state() == LinkState::gone) note("the device is gone");
  if (watch_.state() == LinkState::down) note("the interface is down");
  if (watch_.mtu() > interface_.mtu) note("the MTU has grown: larger packets may be lost until the node is started again");
  if (now_ns - counted_ns_ < kCountEveryNs) return;
  counted_ns_ = now_ns;
  counters_.receive_overrun += intake_->newly_lost();
  if (const std::optional<uint64_t> dropped = dropped_sending(*pair_, entry_))
    counters_.receive_overrun += *dropped - std::exchange(dropped_, *dropped);
}

}  // namespace edgeos
