// Requests to the kernel about network devices by rtnetlink(7), and what they answer.
//
// Owner: whoever made it; one thread at a time. It speaks of the network namespace in which it was made, from any other too.
#pragma once

#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "descriptor.hpp"

namespace edgeos {

// A message under construction: its fixed part, then attributes, which may hold others.
class RouteRequest {
 public:
  template <typename Header>
  RouteRequest(uint16_t type, uint16_t flags, const Header& header) {
    nlmsghdr head{};
    head.nlmsg_type = type;
    head.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    put(&head, sizeof head);
    put(&header, sizeof header);
  }

  void add(uint16_t type, std::string_view text) { add(type, text.data(), text.size()); }
  template <typename Value>
    requires std::is_arithmetic_v<Value>
  void add(uint16_t type, Value value) {
    add(type, &value, sizeof value);
  }
  // `inside` adds what the attribute holds.
  template <typename Inside>
  void nest(uint16_t type, Inside inside) {
    const size_t at = bytes_.size();
    add(type, nullptr, 0);
    inside();
    close(at);
  }
  // The same for an attribute that begins with a fixed part of its own.
  template <typename Header, typename Inside>
  void nest(uint16_t type, const Header& header, Inside inside) {
    nest(type, [&] {
      put(&header, sizeof header);
      inside();
    });
  }

  std::span<const uint8_t> finish();

 private:
  void add(uint16_t type, const void* data, size_t size);
  void put(const void* data, size_t size);
  void close(size_t at);

  std::vector<uint8_t> bytes_;
};

// The attribute of that type among those in `attributes`, without its head; empty if there is none.
std::span<const uint8_t> find_attribute(std::span<const uint8_t> attributes, uint16_t type);

class RouteSocket {
 public:
  explicit RouteSocket(const std::string& device);

  // What the kernel answers, without its message header; empty for a request that asks for nothing. -1 with errno: not done.
  int try_ask(RouteRequest& request, std::vector<uint8_t>& answer) const;
  int try_do(RouteRequest& request) const;

 private:
  const Descriptor fd_;
};

}  // namespace edgeos
