#include "packet_socket.hpp"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include "interface.hpp"
#include "steering.hpp"

#ifndef PACKET_IGNORE_OUTGOING  // Linux 4.20; older headers do not name it
#define PACKET_IGNORE_OUTGOING 23
#endif
#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000
#endif

namespace edgeos {
namespace {

constexpr const char* kPrivilege = "needs CAP_NET_RAW: run as root or in `unshare -Urn`";
// Holds some 7,000 packets of 1500 bytes, or 100 super-frames of 64 KiB, while the worker is busy elsewhere.
constexpr int kReceiveBufferBytes = 8 << 20;
constexpr int kSendBufferBytes = 4 << 20;

template <typename Value>
void set_option(int fd, const std::string& device, int option, const Value& value, const char* what, const char* fix) {
  if (setsockopt(fd, SOL_PACKET, option, &value, sizeof value) < 0) throw_errno(device, what, fix);
}

// The kernel grants less without CAP_NET_ADMIN; less is slower under load, not wrong.
void enlarge(int fd, int forced, int polite, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) < 0)
    setsockopt(fd, SOL_SOCKET, polite, &bytes, sizeof bytes);
}

template <size_t Count>
void set_filter(int fd, const std::string& device, sock_filter (&code)[Count]) {
  const sock_fprog program{Count, code};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
    throw_errno(device, "cannot filter packets", "is the limit of option memory, net.core.optmem_max, very low?");
}

// Until a socket is in its group it would get what others get too.
void shut_the_door(int fd, const std::string& device) {
  sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
  set_filter(fd, device, nothing);
}

// In a group older kernels deliver also what this machine sends.
void let_arrivals_in(int fd, const std::string& device) {
  sock_filter arrivals[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, uint32_t(SKF_AD_OFF + SKF_AD_PKTTYPE)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
  };
  set_filter(fd, device, arrivals);
}

Descriptor packet_socket(const std::string& device) {
  // Protocol 0 receives nothing: packets of other interfaces must not slip in before bind(2).
  Descriptor fd(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) throw_errno(device, "cannot open a packet socket", kPrivilege);
  set_option(fd.get(), device, PACKET_VNET_HDR, 1, "cannot ask for virtio headers", "needs Linux 2.6.33 or later");
  enlarge(fd.get(), SO_SNDBUFFORCE, SO_SNDBUF, kSendBufferBytes);
  return fd;
}

// Protocol 0: nothing is received.
void bind_to(int fd, const std::string& device, int interface, uint16_t protocol) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(protocol);
  address.sll_ifindex = interface;
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    throw_errno(device, "cannot bind to the interface", "is it being removed?");
}

void make_promiscuous(int fd, const std::string& device, int interface) {
  packet_mreq membership{};
  membership.mr_ifindex = interface;
  membership.mr_type = PACKET_MR_PROMISC;
  set_option(fd, device, PACKET_ADD_MEMBERSHIP, membership, "cannot set promiscuous mode", kPrivilege);
}

Descriptor receiving_socket(const std::string& device, bool closed) {
  Descriptor socket_fd = packet_socket(device);
  const int fd = socket_fd.get(), interface = find_interface(device).index;
  set_option(fd, device, PACKET_IGNORE_OUTGOING, 1, "cannot ignore outgoing packets", "needs Linux 4.20 or later");
  set_option(fd, device, PACKET_AUXDATA, 1, "cannot ask for VLAN tags", "needs Linux 2.6.21 or later");
  enlarge(fd, SO_RCVBUFFORCE, SO_RCVBUF, kReceiveBufferBytes);
  if (closed) shut_the_door(fd, device);
  bind_to(fd, device, interface, ETH_P_ALL);
  make_promiscuous(fd, device, interface);
  return socket_fd;
}

// The first makes a group with a number of its own; the others join it.
void join_group(int fd, int first, const std::string& device) {
  uint32_t group = PACKET_FANOUT_FLAG_UNIQUEID << 16;
  socklen_t length = sizeof group;
  if (fd != first && getsockopt(first, SOL_PACKET, PACKET_FANOUT, &group, &length) < 0)
    throw_errno(device, "cannot find the group of packet sockets", "run one worker");
  const uint32_t how = PACKET_FANOUT_CBPF | PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
  const uint32_t joined = (group & 0xffff) | (group & PACKET_FANOUT_FLAG_UNIQUEID << 16) | how << 16;
  set_option(fd, device, PACKET_FANOUT, joined, "cannot join a group of packet sockets", "needs Linux 4.10; or run one worker");
}

}  // namespace

int open_packet_socket(const std::string& device) { return receiving_socket(device, false).release(); }

int open_sending_socket(const std::string& device, bool promiscuous) {
  Descriptor fd = packet_socket(device);
  const int interface = find_interface(device).index;
  bind_to(fd.get(), device, interface, 0);
  if (promiscuous) make_promiscuous(fd.get(), device, interface);
  return fd.release();
}

std::vector<int> open_packet_group(const std::string& device, uint32_t sockets, bool by_destination) {
  if (sockets <= 1) return {open_packet_socket(device)};
  std::vector<Descriptor> group;
  while (group.size() < sockets) {
    group.push_back(receiving_socket(device, true));
    join_group(group.back().get(), group.front().get(), device);
  }
  std::vector<sock_filter> code = steering_program(by_destination, sockets);
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  set_option(group.front().get(), device, PACKET_FANOUT_DATA, program, "cannot steer packets to workers",
             "needs Linux 4.3 or later; or run one worker");
  std::vector<int> descriptors;
  for (const Descriptor& fd : group) let_arrivals_in(fd.get(), device);
  for (Descriptor& fd : group) descriptors.push_back(fd.release());
  return descriptors;
}

}  // namespace edgeos
