// An existing network interface, by AF_XDP: packets go past the kernel's stack, from the device's queues into memory that
// the node shares with the kernel; those not asked for go to the stack as ever.
//
// Manual: the interface must exist and be up. Of all its queues, or of one, the packets that meet a term of `take` are
// received, all without terms. The program is attached by a link that ends with the process. Native mode where the driver
// has it, else generic; zero-copy where device and memory have it. Checksums that the sender left to its device (veth) are
// finished for TCP and UDP. VLAN tags are kept. Packets are sent on the first queue. Owner: the worker's data-plane
// thread. receive_overrun counts what found no frame or was larger than one. Needs CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF,
// and CAP_PERFMON with terms.
#pragma once

#include <memory>
#include <vector>

#include "device_port.hpp"
#include "link_watch.hpp"
#include "xdp_intake.hpp"

namespace edgeos {

class AfXdpPort final : public LivePort {
 public:
  static constexpr int kAllQueues = -1;

  AfXdpPort(std::string name, const std::string& device, std::shared_ptr<Umem> umem, int queue = kAllQueues,
            const std::vector<Rule>& take = {});

  uint32_t receive(Packet* out, uint32_t max) override;
  bool send(const uint8_t* data, uint32_t len, uint64_t time_ns) override;
  void flush() override;
  uint32_t queued() const override { return gone_ ? 0 : sender_->queued(); }
  int wait_fd() const override;

  std::vector<XdpFrameCounts> frames() const;  // of each socket, for tests

 private:
  void stop_listening();
  bool refuse(uint32_t len);
  void look(uint64_t now_ns);
  void go_silent();

  const Interface interface_;
  const std::shared_ptr<Umem> umem_;
  const Descriptor promiscuous_, wait_fd_;
  LinkWatch watch_;
  XdpIntake intake_;
  XdpSocket* const sender_;
  uint64_t looked_ns_ = 0, counted_ns_ = 0;
  bool gone_ = false;
  mutable bool listening_ = false;
};

}  // namespace edgeos
