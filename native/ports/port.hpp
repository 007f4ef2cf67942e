// The port contract: where messages enter and leave a node.
//
// Owner: the worker; every call comes from its data-plane thread, but counters(), problem() and
// mode(), which are called on that thread too, between iterations. A port never throws after it has been opened: what goes wrong is counted, and said by
// problem().
#pragma once

#include <cstdint>
#include <string>

namespace edgeos {

// One received packet. The view stays valid until the next receive() on the same port.
struct Packet {
  const uint8_t* data;
  uint32_t len;
  uint64_t time_ns;  // since 1970; the capture's own time for files
};

// Law: accepted by send() = sent + send_dropped + still queued.
struct PortCounters {
  uint64_t received = 0;
  uint64_t received_bytes = 0;
  uint64_t sent = 0;
  uint64_t sent_bytes = 0;
  uint64_t send_dropped = 0;     // accepted by send(), then refused by the device
  uint64_t receive_overrun = 0;  // lost before receive(), as the device reports it; never received, so not in any sum
};

class Listener;

class Port {
 public:
  explicit Port(std::string name) : name_(std::move(name)) {}
  virtual ~Port() = default;
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  // Fills `out` with up to `max` packets; 0 when there is none now.
  virtual uint32_t receive(Packet* out, uint32_t max) = 0;

  // Copies one packet into the port's own queue. False: no room or no way to send; the caller counts the drop.
  virtual bool send(const uint8_t* data, uint32_t len, uint64_t time_ns) = 0;

  // The same for several, of which so many were accepted. For ports that have a quicker way than one by one.
  virtual uint32_t send_burst(const Packet* packets, uint32_t count) {
    uint32_t accepted = 0;
    for (uint32_t i = 0; i < count; i++) accepted += send(packets[i].data, packets[i].len, packets[i].time_ns);
    return accepted;
  }

  // Hands to the device what send() queued; what it refuses is counted as send_dropped or stays queued for the next flush.
  virtual void flush() = 0;

  // Packets that send() accepted and that are neither sent nor dropped yet.
  virtual uint32_t queued() const { return 0; }

  // A descriptor that poll(2) finds readable when receive() has something; -1 when there is none to wait for. Asked for
  // anew before each wait: it need not tell anything once receive() was called again.
  virtual int wait_fd() const { return -1; }

  // True when the source waits for us without loss (a file): the worker then does not read on while a chain is full.
  virtual bool lossless() const { return false; }

  // True when this port will never receive again: a file at its end, a port that only writes.
  virtual bool exhausted() const { return false; }

  // What went wrong since the port was opened, for the user, such as "in.pcap: truncated after packet 17"; empty if nothing.
  virtual std::string problem() const { return {}; }

  // How the device is used, for the user, such as "native, zero-copy, 4 queues"; empty if there is one way only.
  virtual std::string mode() const { return {}; }

  // A listener, whose messages are not packets; else nullptr.
  virtual Listener* as_listener() { return nullptr; }

  const std::string& name() const { return name_; }
  const PortCounters& counters() const { return counters_; }

 protected:
  PortCounters counters_;

 private:
  std::string name_;
};

}  // namespace edgeos
