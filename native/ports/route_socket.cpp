#include "route_socket.hpp"

#include <sys/socket.h>

#include <algorithm>

namespace edgeos {
namespace {

constexpr size_t kAnswerBytesMax = 32768;

int open_netlink(const std::string& device) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) throw_errno(device, "cannot ask the kernel by netlink", "raise the limit of open files: `ulimit -n`");
  return fd;
}

size_t aligned(size_t size) { return NLMSG_ALIGN(size); }

}  // namespace

void RouteRequest::put(const void* data, size_t size) {
  const size_t at = bytes_.size();
  bytes_.resize(at + aligned(size));
  if (size > 0) std::memcpy(bytes_.data() + at, data, size);
}

void RouteRequest::add(uint16_t type, const void* data, size_t size) {
  const rtattr head{static_cast<uint16_t>(sizeof(rtattr) + size), type};
  put(&head, sizeof head);
  put(data, size);
}

void RouteRequest::close(size_t at) {
  const auto size = static_cast<uint16_t>(bytes_.size() - at);
  std::memcpy(bytes_.data() + at, &size, sizeof size);
}

std::span<const uint8_t> RouteRequest::finish() {
  const auto size = static_cast<uint32_t>(bytes_.size());
  std::memcpy(bytes_.data(), &size, sizeof size);
  return bytes_;
}

std::span<const uint8_t> find_attribute(std::span<const uint8_t> attributes, uint16_t type) {
  rtattr head{};
  while (attributes.size() >= sizeof head) {
    std::memcpy(&head, attributes.data(), sizeof head);
    if (head.rta_len < sizeof head || head.rta_len > attributes.size()) break;
    if ((head.rta_type & NLA_TYPE_MASK) == type) return attributes.subspan(sizeof head, head.rta_len - sizeof head);
    attributes = attributes.subspan(std::min(aligned(head.rta_len), attributes.size()));
  }
  return {};
}

RouteSocket::RouteSocket(const std::string& device) : fd_(open_netlink(device)) {}

int RouteSocket::try_ask(RouteRequest& request, std::vector<uint8_t>& answer) const {
  const std::span<const uint8_t> message = request.finish();
  if (send(fd_.get(), message.data(), message.size(), 0) < 0) return -1;
  answer.resize(kAnswerBytesMax);
  const ssize_t size = recv(fd_.get(), answer.data(), answer.size(), 0);
  if (size < 0) return -1;
  nlmsghdr head{};
  nlmsgerr error{};
  if (static_cast<size_t>(size) < sizeof head) return errno = EBADMSG, -1;
  std::memcpy(&head, answer.data(), sizeof head);
  if (head.nlmsg_len < sizeof head || head.nlmsg_len > static_cast<size_t>(size)) return errno = EBADMSG, -1;
  answer.resize(head.nlmsg_len);
  answer.erase(answer.begin(), answer.begin() + NLMSG_HDRLEN);
  if (head.nlmsg_type != NLMSG_ERROR) return 0;
  if (answer.size() < sizeof error) return errno = EBADMSG, -1;
  std::memcpy(&error, answer.data(), sizeof error);
  answer.clear();
  return error.error == 0 ? 0 : (errno = -error.error, -1);
}

int RouteSocket::try_do(RouteRequest& request) const {
  std::vector<uint8_t> answer;
  return try_ask(request, answer);
}

}  // namespace edgeos
