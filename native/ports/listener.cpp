#include "listener.hpp"

#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <stdexcept>

namespace edgeos {
namespace {

constexpr int kUdpReceiveBytes = 4 << 20;  // asked of the kernel, which may give less

std::string fix_for(int error, const ListenerSettings& s) {
  switch (error) {
    case EADDRINUSE: return "another program listens there: stop it, or choose another port";
    case EACCES:
      return s.kind == ListenerKind::unix_stream ? "this user may not write to the folder"
                                                 : "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one";
    case EADDRNOTAVAIL: return "no interface of this machine has the address";
    case ENOENT: return "make the folder first";
    case EAFNOSUPPORT: return "this machine has no such address family";
    case EMFILE: return "raise the limit of open files, `ulimit -n`";
    default: return "see ip(7) and unix(7)";
  }
}

std::string place(const ListenerSettings& s) {
  if (s.kind == ListenerKind::unix_stream) return s.address;
  const bool six = s.address.find(':') != std::string::npos;
  return (six ? "[" + s.address + "]" : s.address) + ":" + std::to_string(s.port);
}

int open_socket(const ListenerSettings& s, int family) {
  const int type = (s.kind == ListenerKind::udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const int fd = socket(family, type, 0);
  if (fd < 0) throw_errno(place(s), "cannot make a socket", fix_for(errno, s));
  return fd;
}

void set_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

// A file that a socket left behind is in the way of the next one. One that somebody listens on stays.
void remove_stale(const ListenerSettings& s, const SocketAddress& address) {
  struct stat found;
  if (lstat(s.address.c_str(), &found) != 0) return;
  if (!S_ISSOCK(found.st_mode)) throw std::runtime_error(s.address + ": is not a socket, and is left alone (choose another path)");
  const Descriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (connect(probe.get(), address.get(), address.length) == 0 || errno == EAGAIN) {
    errno = EADDRINUSE;
    throw_errno(s.address, "cannot listen", "another program listens there: stop it, or choose another path");
  }
  if (errno == ECONNREFUSED) unlink(s.address.c_str());
}

// Chooses the socket of a group by the source address alone, so that a client always comes to the same worker: classic BPF,
// in which the network header lies at SKF_NET_OFF.
void steer_by_source(int fd, uint32_t sockets) {
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
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
}

}  // namespace

Listener::Listener(std::string name, ListenerSettings settings)
    : Port(std::move(name)),
      settings_(std::move(settings)),
      family_(socket_address(settings_.address, settings_.port, settings_.kind == ListenerKind::unix_stream).storage.ss_family),
      fd_(open_socket(settings_, family_)),
      tokens_(std::max(1u, settings_.accept_rate)) {
  if (settings_.proxy_protocol) throw std::runtime_error(where() + ": PROXY headers are not read yet");
  const bool is_unix = settings_.kind == ListenerKind::unix_stream;
  const SocketAddress address = socket_address(settings_.address, settings_.port, is_unix);
  if (is_unix) remove_stale(settings_, address);
  if (settings_.kind == ListenerKind::tcp) set_option(fd(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (settings_.reuse_port && !is_unix) set_option(fd(), SOL_SOCKET, SO_REUSEPORT, 1);
  if (is_udp()) {
    set_option(fd(), SOL_SOCKET, SO_RCVBUF, kUdpReceiveBytes);
    if (family_ == AF_INET) {
      set_option(fd(), IPPROTO_IP, IP_PKTINFO, 1);
    } else {
      set_option(fd(), IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    }
  }
  // The file's mode is set before anybody can connect: nobody can until listen(2).
  if (bind(fd(), address.get(), address.length) != 0) throw_errno(place(settings_), "cannot listen", fix_for(errno, settings_));
  owns_file_ = is_unix;
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (getsockname(fd(), reinterpret_cast<sockaddr*>(&bound), &length) == 0) port_number_ = endpoint_from(bound).port;
  if (is_unix && chmod(settings_.address.c_str(), settings_.mode) != 0)
    throw_errno(settings_.address, "cannot set the mode", "see chmod(2)");
  if (settings_.steer_workers > 1 && !is_unix) steer_by_source(fd(), settings_.steer_workers);
  if (!is_udp() && listen(fd(), settings_.backlog) != 0)
    throw_errno(place(settings_), "cannot listen", fix_for(errno, settings_));
}

std::string Listener::where() const {
  ListenerSettings found = settings_;
  found.port = port_number_;
  return place(found);
}

void Listener::stop() {
  if (owns_file_) unlink(settings_.address.c_str());
  owns_file_ = false;
  if (!is_udp()) shutdown(fd(), SHUT_RDWR);
}

bool Listener::within_rate(uint64_t now_ns) {
  const auto rate = static_cast<double>(settings_.accept_rate);
  if (settings_.accept_rate == 0) return true;
  if (tokens_at_ns_ != 0) tokens_ = std::min(rate, tokens_ + static_cast<double>(now_ns - tokens_at_ns_) * 1e-9 * rate);
  tokens_at_ns_ = now_ns;
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

}  // namespace edgeos
