// One connection: its socket, the chain instance that serves it, and what waits to be written. A flow of datagrams over a UDP
// listener is one too, without a socket of its own.
//
// Owner: Streams, on the data-plane thread. What the thread that runs guests may look at while that one goes on is atomic, or
// its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../ports/listener.hpp"
#include "intrusive_list.hpp"
#include "prefetch.hpp"

namespace edgeos {

struct ChainInstance;
struct Deadlines;
struct Service;

enum class ConnectionState : uint8_t {
  free,
  header,      // accepted; the PROXY header is awaited
  hello,       // it is known who the client is; the first bytes of TLS are awaited, which name the server
  undecided,   // no rule matches, and an answer about the client is awaited
  connecting,  // to an upstream
  open,
  lingering,   // the guest has closed it: what waits is written, then what still comes is thrown away until the peer closes
  gone,        // the socket is closed; the instance may have to be told
};

// Bytes that the socket did not take yet; holds no memory while empty.
class OutputQueue {
 public:
  size_t size() const { return bytes_.size() - head_; }
  const uint8_t* data() const { return bytes_.data() + head_; }
  void append(const uint8_t* data, size_t len) {
    if (head_ > bytes_.size() / 2) {
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(head_));
      head_ = 0;
    }
    bytes_.insert(bytes_.end(), data, data + len);
  }
  void consume(size_t len) {
    head_ += len;
    if (head_ == bytes_.size()) clear();
  }
  void clear() {
    std::vector<uint8_t>().swap(bytes_);
    head_ = 0;
  }

 private:
  std::vector<uint8_t> bytes_;
  size_t head_ = 0;
};

// What each message needs comes first, on two lines of the cache: with many clients they are cold.
struct alignas(64) Connection {
  int fd = -1;
  ConnectionState state = ConnectionState::free;
  uint8_t stage = 0;       // that hears of it
  uint8_t direction = 0;   // its messages travel in
  uint8_t in_port = 0;
  ChainInstance* instance = nullptr;
  Service* service = nullptr;  // the listener that it came through; nullptr: to an upstream
  uint32_t flow = 0;
  uint16_t upstream = 0;   // 0: a client's; else 1 + its place in the template's list
  bool is_udp = false;
  enum class Place : uint8_t { none, work, parked, held_back, waiting } place = Place::none;
  bool readable = false;     // there may be something to read
  bool peer_closing = false; // the end of the stream is in sight: read on until it comes
  bool half_closed = false;  // the peer sends no more, and the instance has been told
  bool finishing = false;    // we send no more once the queue is empty
  bool finished = false;
  bool over = false;         // more waits than the output limit
  bool silent = false;       // the instance need not be told that it is gone
  bool counted = false;      // among its client's
  std::atomic<bool> announced{false};  // the instance has been told that it is open
  std::atomic<bool> full{false};       // takes nothing from edgeos_send
  uint16_t waiting_stages = 0;  // whose edgeos_send was cut short, and who wait for room
  std::atomic<uint16_t> cut_short{0};  // stages whose edgeos_send was cut short in a burst that is not finished yet
  uint16_t finished_by = 0;  // stages that have ended their sending; of the thread that runs guests
  uint16_t closed_by = 0;
  uint32_t queued_messages = 0; // in `out`, whole or in part
  OutputQueue out;
  uint64_t since_ns = 0;  // its place in `deadlines`
  Deadlines* deadlines = nullptr;
  Link<Connection> work_link;      // in the list of work, among those of their instance that wait, or for their time

  std::shared_ptr<uint32_t> departing;  // where it is counted once a guest has closed it, to an upstream
  Link<Connection> instance_link;
  Link<Connection> deadline_link;
  Link<Connection> client_link;
  Endpoint peer;
  Endpoint local;
  std::string server_name;  // of TLS, where rules ask for it

  // To its instance, which has to hear of its end.
  bool is_known() const { return upstream != 0 || announced.load(std::memory_order_relaxed); }
  // Starts to bring near what each message needs of it.
  void prefetch() const {
    prefetch_line(this);
    prefetch_line(reinterpret_cast<const uint8_t*>(this) + 64);
  }
};

using WorkList = List<Connection, &Connection::work_link>;
using InstanceList = List<Connection, &Connection::instance_link>;
using DeadlineList = List<Connection, &Connection::deadline_link>;
using ClientList = List<Connection, &Connection::client_link>;

// Connections that end when they stand here for too long, the longest first.
struct Deadlines {
  DeadlineList list;
  uint64_t timeout_ns = 0;  // 0: never
  bool ordered = false;     // kept in order even so: the longest silent may have to give way
  Ending ending = Ending::idle_timeout;
};

}  // namespace edgeos
