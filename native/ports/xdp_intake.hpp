// Takes packets from queues of a network interface by AF_XDP: a socket on each queue, and the program that sends them there,
// attached by a link that ends with the process.
//
// Owner: a port; its data-plane thread. What is received stays valid until the next receive(). All calls but the
// constructor's may come from another network namespace than that of the interface.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "port.hpp"
#include "xdp_link.hpp"
#include "xdp_program.hpp"
#include "xdp_socket.hpp"

namespace edgeos {

class XdpIntake {
 public:
  struct Options {
    int queue = -1;                         // -1 for all
    std::vector<Rule> take = {};            // terms of what is taken, all packets without
    std::optional<XdpMode> mode = {};       // native where it can be, unless given
    bool sends = false;                     // the first queue's socket has a send ring
  };

  XdpIntake(const std::string& device, int interface, std::shared_ptr<Umem> umem, const Options& options);

  uint32_t receive(Packet* out, uint32_t max, uint64_t now_ns, PortCounters& counters);
  uint64_t newly_lost();  // packets that found no frame or were larger than one, since the last call

  const std::vector<std::unique_ptr<XdpSocket>>& sockets() const { return sockets_; }
  XdpMode mode() const { return link_->mode; }

 private:
  void open_sockets(int interface, const Options& options);

  const std::string device_;
  const std::shared_ptr<Umem> umem_;
  // Sockets go before the map that holds them, and the link, last made, goes first of all.
  std::unique_ptr<Descriptor> map_, program_;
  std::vector<std::unique_ptr<XdpSocket>> sockets_;
  std::unique_ptr<XdpLink> link_;
  size_t next_socket_ = 0;
  std::vector<xdp_desc> received_;
  uint64_t lost_ = 0;  // when last asked
};

}  // namespace edgeos
