#include "listening_socket.hpp"

#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <stdexcept>

#include "descriptor.hpp"
#include "socket_address.hpp"

namespace edgeos {
namespace {

constexpr int kUdpReceiveBytes = 4 << 20;  // asked of the kernel, which may give less

std::string fix_for(int error, const ListeningPlace& place) {
  switch (error) {
    case EADDRINUSE: return "another program listens there: stop it, or choose another port";
    case EACCES:
      return place.kind == ListenerKind::unix_stream ? "this user may not write to the folder"
                                                     : "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one";
    case EADDRNOTAVAIL: return "no interface of this machine has the address";
    case ENOENT: return "make the folder first";
    case EAFNOSUPPORT: return "this machine has no such address family";
    case EMFILE: return "raise the limit of open files, `ulimit -n`";
    default: return "see ip(7) and unix(7)";
  }
}

void set_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

// A file that a socket left behind is in the way of the next one. One that somebody listens on stays.
void remove_stale(const ListeningPlace& place, const SocketAddress& address) {
  struct stat found;
  if (lstat(place.address.c_str(), &found) != 0) return;
  if (!S_ISSOCK(found.st_mode)) throw std::runtime_error(place.address + ": is not a socket, and is left alone (choose another path)");
  const Descriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (connect(probe.get(), address.get(), address.length) == 0 || errno == EAGAIN) {
    errno = EADDRINUSE;
    throw_errno(place.address, "cannot listen", "another program listens there: stop it, or choose another path");
  }
  if (errno == ECONNREFUSED) unlink(place.address.c_str());
}

void set_options(int fd, const ListeningPlace& place, int family, bool shared) {
  if (place.kind == ListenerKind::tcp) set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (shared) set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (place.kind != ListenerKind::udp) return;
  set_option(fd, SOL_SOCKET, SO_RCVBUF, kUdpReceiveBytes);
  if (family == AF_INET) {
    set_option(fd, IPPROTO_IP, IP_PKTINFO, 1);
  } else {
    set_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  }
}

// Keeps everybody out: what comes meanwhile is dropped, and a client's SYN is repeated.
void shut_the_door(int fd) {
  sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
  const sock_fprog program{1, code};
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

void open_the_door(int fd) { set_option(fd, SOL_SOCKET, SO_DETACH_FILTER, 0); }

Descriptor bound_socket(const ListeningPlace& place, bool shared, bool closed) {
  const bool is_unix = place.kind == ListenerKind::unix_stream;
  const SocketAddress address = socket_address(place.address, place.port, is_unix);
  const int type = (place.kind == ListenerKind::udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  Descriptor fd(socket(address.storage.ss_family, type, 0));
  if (fd.get() < 0) throw_errno(place_text(place), "cannot make a socket", fix_for(errno, place));
  if (is_unix) remove_stale(place, address);
  set_options(fd.get(), place, address.storage.ss_family, shared);
  if (closed) shut_the_door(fd.get());
  if (bind(fd.get(), address.get(), address.length) != 0) throw_errno(place_text(place), "cannot listen", fix_for(errno, place));
  // The file's mode is set before anybody can connect: nobody can until listen(2).
  if (is_unix && chmod(place.address.c_str(), place.mode) != 0) {
    const int error = errno;
    unlink(place.address.c_str());
    errno = error;
    throw_errno(place.address, "cannot set the mode", "see chmod(2)");
  }
  if (place.kind != ListenerKind::udp && listen(fd.get(), place.backlog) != 0)
    throw_errno(place_text(place), "cannot listen", fix_for(errno, place));
  return fd;
}

// Chooses the socket of a group by the source address: classic BPF, in which the network header lies at SKF_NET_OFF.
void steer_by_source(int fd, const ListeningPlace& place, uint32_t sockets) {
  constexpr auto kNet = static_cast<uint32_t>(SKF_NET_OFF);
  const uint32_t golden = 0x9e3779b1;
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kNet),
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 2),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNet + 12),  // IPv4: the source address
      BPF_JUMP(BPF_JMP | BPF_JA, 10, 0, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNet + 8),  // IPv6: its four words, folded
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNet + 12),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNet + 16),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNet + 20),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, golden),
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
      BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, sockets),
      BPF_STMT(BPF_RET | BPF_A, 0),
  };
  const sock_fprog program{sizeof code / sizeof *code, code};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) != 0)
    throw_errno(place_text(place), "clients cannot be shared out by their address", "needs Linux 4.6; or run one worker");
}

uint16_t bound_port(int fd) {
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  return getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) == 0 ? endpoint_from(bound).port : 0;
}

}  // namespace

std::string place_text(const ListeningPlace& place) {
  if (place.kind == ListenerKind::unix_stream) return place.address;
  const bool six = place.address.find(':') != std::string::npos;
  return (six ? "[" + place.address + "]" : place.address) + ":" + std::to_string(place.port);
}

int open_listening_socket(const ListeningPlace& place) { return bound_socket(place, false, false).release(); }

std::vector<int> open_listening_group(const ListeningPlace& place, uint32_t sockets, bool by_source) {
  if (sockets <= 1) return {open_listening_socket(place)};
  std::vector<Descriptor> group;
  if (place.kind == ListenerKind::unix_stream) {
    group.push_back(bound_socket(place, false, false));
    while (group.size() < sockets) group.emplace_back(fcntl(group.front().get(), F_DUPFD_CLOEXEC, 0));
    if (group.back().get() < 0) throw_errno(place_text(place), "cannot share the socket", fix_for(errno, place));
  } else {
    // SO_REUSEPORT would also let in another program of this user that has the address: that is found out by doing without.
    { const Descriptor alone = bound_socket(place, false, true); }
    ListeningPlace one = place;
    while (group.size() < sockets) {
      group.push_back(bound_socket(one, true, true));
      one.port = bound_port(group.front().get());
    }
    if (by_source) steer_by_source(group.front().get(), place, sockets);
    for (const Descriptor& fd : group) open_the_door(fd.get());
  }
  std::vector<int> descriptors;
  for (Descriptor& fd : group) descriptors.push_back(fd.release());
  return descriptors;
}

}  // namespace edgeos
