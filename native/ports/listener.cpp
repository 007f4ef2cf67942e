#include "listener.hpp"

#include <fcntl.h>

#include <algorithm>
#include <stdexcept>

namespace edgeos {
namespace {

int own_or_copy(const ListenerSettings& s) {
  if (s.fd < 0) return open_listening_socket(s);
  int type = 0;
  socklen_t length = sizeof type;
  const int expected = s.kind == ListenerKind::udp ? SOCK_DGRAM : SOCK_STREAM;
  if (getsockopt(s.fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != expected)
    throw std::runtime_error(place_text(s) + ": descriptor " + std::to_string(s.fd) + " is no listening socket of this kind");
  const int fd = fcntl(s.fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) throw_errno(place_text(s), "cannot take over the socket", "raise the limit of open files, `ulimit -n`");
  return fd;
}

}  // namespace

Listener::Listener(std::string name, ListenerSettings settings)
    : Port(std::move(name)), settings_(std::move(settings)), fd_(own_or_copy(settings_)), tokens_(std::max(1u, settings_.accept_rate)) {
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (getsockname(fd(), reinterpret_cast<sockaddr*>(&bound), &length) == 0) port_number_ = endpoint_from(bound).port;
  family_ = bound.ss_family;
}

std::string Listener::where() const {
  ListeningPlace found = settings_;
  found.port = port_number_;
  return place_text(found);
}

void Listener::stop() {
  if (stopped_ || is_shared()) return;
  stopped_ = true;
  if (settings_.kind == ListenerKind::unix_stream) unlink(settings_.address.c_str());
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
