// A listener: a port whose messages are connections or datagrams. This is the socket with its settings and counters; what
// becomes of the connections is the business of Streams (native/kernel/streams.hpp), which every worker has one of.
//
// Owner: the worker's data-plane thread. Opening throws std::system_error that says what was tried and the fix. The file of a
// Unix socket is removed when the port is closed, where the socket is the port's own.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "../kernel/client_prefix.hpp"
#include "descriptor.hpp"
#include "listening_socket.hpp"
#include "port.hpp"
#include "socket_address.hpp"

namespace edgeos {

struct ListenerSettings : ListeningPlace {
  uint32_t max_connections = 10'000;
  uint32_t max_per_client = 1000;  // a client is a source address, of IPv6 a prefix; not for Unix sockets, which have none
  uint8_t client_prefix_v6 = kClientPrefixV6;
  uint32_t accept_rate = 0;        // new connections a second; 0: no limit
  uint64_t open_timeout_ns = 0;    // until a connection's first byte; 0: none
  uint64_t idle_timeout_ns = 0;
  bool proxy_protocol = false;
  uint32_t output_limit = 256 * 1024;
  int fd = -1;  // a listening socket that somebody else has made and keeps; -1: one of its own
};

// Why a client was not let in.
enum class Refusal : uint8_t {
  max_connections,
  max_per_client,
  accept_rate,
  no_descriptors,  // the process has no more file descriptors
  bad_header,      // what should have been a PROXY header is none
  header_timeout,  // no whole PROXY header came in time
  no_hello,        // it left, or said too little in time, before it was known which server's name it asks for
  rule,            // a rule says drop
  no_rule,         // no rule matches
  max_fwps,        // a new client, and the chain is at its limit
  no_fwp,          // no FWP could be made
  blocked,         // its FWP was killed and the chain fails closed
  max_clients,     // a new client, and its rule lets no more in
  new_clients,     // a new client, and they come faster than its rule, chain or tenant allows
  tenant_clients,  // a new client, and its tenant is at a limit: of clients, FWPs or their memory
  tenant_fwps,
  tenant_memory,
  undecided,       // no rule matches: an answer about the client is awaited, could not be asked for, or was to drop
  unasked,
  unmatched,
  stopping,        // the node takes no new clients any more
  count
};

inline constexpr std::array<std::string_view, size_t(Refusal::count)> kRefusalNames = {
    "max_connections", "max_per_client", "accept_rate", "no_descriptors", "bad_header", "header_timeout", "no_hello",
    "rule", "no_rule", "max_fwps", "no_fwp", "blocked", "max_clients", "new_clients", "tenant_clients", "tenant_fwps",
    "tenant_memory", "undecided", "unasked", "unmatched", "stopping"};

// Why a connection ended.
enum class Ending : uint8_t {
  done,          // both sides have said all they had to say
  guest,         // the guest closed it
  peer,          // the peer reset it, or the network failed
  open_timeout,
  idle_timeout,
  displaced,     // a flow of datagrams that gave way to a newer one
  killed,        // its FWP was killed
  evicted,       // its client's FWPs were taken away: the chain was closed or full, or the node stopped
  count
};

inline constexpr std::array<std::string_view, size_t(Ending::count)> kEndingNames = {
    "done", "guest", "peer", "open_timeout", "idle_timeout", "displaced", "killed", "evicted"};

// Law: accepted + refused = all that came; accepted = connections now + ended by reason.
struct ConnectionCounters {
  uint64_t connections = 0;  // now
  uint64_t accepted = 0;
  std::array<uint64_t, size_t(Refusal::count)> refused{};
  std::array<uint64_t, size_t(Ending::count)> ended{};
};

class Listener final : public Port {
 public:
  Listener(std::string name, ListenerSettings settings);
  ~Listener() override { stop(); }

  // Packets neither come from here nor can they be sent here.
  uint32_t receive(Packet*, uint32_t) override { return 0; }
  bool send(const uint8_t*, uint32_t, uint64_t) override { return false; }
  void flush() override {}
  uint32_t queued() const override { return queued_messages; }
  std::string problem() const override { return problem_; }
  Listener* as_listener() override { return this; }

  int fd() const { return fd_.get(); }
  const ListenerSettings& settings() const { return settings_; }
  bool is_udp() const { return settings_.kind == ListenerKind::udp; }
  int family() const { return family_; }
  std::string where() const;
  uint16_t port_number() const { return port_number_; }  // the one that was given, for port 0
  // Lets nobody in any more. A socket that somebody else keeps stays as it is: those who come wait in it.
  void stop();
  // Nobody will come any more, nor will flows of datagrams go on: the address is free, where nobody else has the socket.
  void close() {
    stop();
    ::close(fd_.release());
  }
  bool is_shared() const { return settings_.fd >= 0; }

  // Takes a token for one more connection; false when they come too fast.
  bool within_rate(uint64_t now_ns);
  void note(const std::string& what) {
    if (problem_.empty()) problem_ = what;
  }
  PortCounters& traffic() { return counters_; }

  ConnectionCounters connections;
  uint32_t queued_messages = 0;  // accepted from guests and not quite written yet

 private:
  ListenerSettings settings_;
  Descriptor fd_;
  int family_ = 0;
  uint16_t port_number_ = 0;
  bool stopped_ = false;
  std::string problem_;
  double tokens_;
  uint64_t tokens_at_ns_ = 0;
};

}  // namespace edgeos
