// Connections and datagrams: accepts them, reads them straight into the slots of the FWP that serves them, writes what guests
// answer, and ends them by their limits. One for each worker, over one epoll set.
//
//   accepted ──▶ (PROXY header) ──▶ (server name of TLS) ──▶ rules, chain instance ──▶ open ──▶ gone, told to the instance ──▶ free
//
// Nothing is lost on the way: a socket is read only into a free slot. One that finds no room is parked with its instance and
// read on when a burst has made some, so a full ring stops that socket alone. What a peer does not read waits in its
// connection's queue. Beyond the output limit the instance that fills it is not run, nor are its sockets read, until it has
// drained; a shared FWP, which many clients have, goes on, and only that client's socket is not read.
//
// Owner: the worker, on the data-plane thread; the calls of guests (send, connect) come from the thread that runs them, which
// stages what they ask for in its Run. The mover carries it out. Nothing a guest says is believed.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "clock.hpp"
#include "dispatcher.hpp"
#include "flow_index.hpp"
#include "mma.hpp"

namespace edgeos {

struct UpstreamSettings {
  ListenerKind kind = ListenerKind::tcp;
  std::string address;  // or a path
  uint16_t port = 0;
};

// A listener with its connections.
struct Service {
  struct Client {
    uint32_t count = 0;
    ClientList flows;  // of datagrams, the longest silent first
  };
  explicit Service(Listener& l, uint16_t number);
  Listener& listener;
  uint16_t port;
  Deadlines greeting;  // of those whose PROXY header is awaited
  Deadlines opening;
  Deadlines quiet;
  std::unordered_map<Address, Client, EndpointHash> clients;
  std::unordered_map<std::pair<Endpoint, Endpoint>, Connection*, EndpointHash> flows;  // of datagrams, by peer and local end
  uint64_t paused_until_ns = 0;  // no descriptors: accepts nobody until then
  bool stopped = false;          // accepts nobody any more
  uint32_t awaited = 0;          // connections whose PROXY header is awaited; not accepted yet
};

// What became of a message that reached its connection.
enum class Delivery : uint8_t { sent, consumed, no_connection, refused };

class Streams {
 public:
  Streams(const std::vector<Port*>& ports, std::vector<UpstreamSettings> upstreams, Dispatcher& dispatcher, ReadyList& ready);
  ~Streams();

  // One round over everything that is ready. True if there was anything to do.
  bool receive(uint64_t now_ns);
  // Ends what is over its time, at most so many.
  void expire(uint64_t now_ns, uint32_t most);
  // When expire() or receive() has something to do though no socket is ready; UINT64_MAX if never.
  uint64_t next_expiry_ns() const;
  int wait_fd() const { return epoll_.get(); }
  // Lets nobody in any more; who is in stays.
  void stop_listening();
  // All that a listener needs, which may fail; it lets nobody in before open_listener(), which does not.
  void add_listener(Listener& listener, uint16_t port);
  void open_listener(Listener& listener);
  // One that goes from a running node: its connections stay, its flows of datagrams end.
  void remove_listener(Listener& listener);
  // Closes everything.
  void shut_down();

  // ---- For the mover ----
  // Bytes or news for the other end of a flow; `pieces` are messages.
  Delivery deliver(ChainInstance& instance, const Destination& to, uint8_t stage, uint32_t flow, MessageKind kind,
                   const iovec* pieces, uint32_t count);
  // Where an edgeos.stream of this stage leads.
  Destination destination(ChainInstance& instance, uint8_t stage, uint32_t flow, int32_t to) const;
  void open_upstream(ChainInstance& instance, uint8_t stage, uint32_t flow, uint32_t place);
  // A guest's send was cut short.
  void wants_room(ChainInstance& instance, uint8_t stage, uint32_t flow);
  // A burst has ended: there may be room again.
  void room(ChainInstance& instance) {
    if (!instance.streams.parked.empty()) wake_parked(instance);
  }
  // The FWP of this stage was killed.
  void killed(ChainInstance& instance, uint8_t stage);
  // The instance is about to be unbound.
  void leave(ChainInstance& instance);

  // ---- For the thread that runs guests; all arguments are the guest's ----
  bool knows(const Run& run, uint64_t flow);  // as a connection
  int32_t call_stream(Run& run, uint32_t index, uint64_t flow, int32_t to, int32_t kind, uint32_t address, uint32_t len);
  int64_t call_connect(Run& run, uint32_t upstream);

  uint64_t received() const { return received_; }

 private:
  // The sockets' side.
  void accept_from(Service& service);
  void refuse_without_descriptors(Service& service);
  void refuse(Service& service, Refusal reason, int fd);
  void start(Service& service, int fd, const Endpoint& peer);
  void let_in(Connection& c);
  void read_header(Connection& c);
  void read_hello(Connection& c);
  void choose_chain(Connection& c);
  void turn_away(Connection& c, Refusal reason);
  bool join_client(Connection& c, Refusal& why);
  bool attach(Connection& c, Refusal& why);
  void leave_client(Connection& c);
  void prepare_datagrams();
  void receive_datagrams(Service& service);
  static bool has_room(const ChainInstance& instance);
  void drop_datagram(Chain& chain, Drop why, PortCounters& traffic, uint32_t len);
  static Endpoint local_of(const msghdr& header, const Listener& listener);
  Connection* find_flow(Service& service, const Endpoint& peer, const Endpoint& local);
  void finish_connect(Connection& c);
  void handle_event(uint64_t tag, uint32_t events);
  bool watch(int fd, uint64_t tag, uint32_t events, int operation);
  Service& service_at(const Listener& listener);
  void stop_listening(Service& service);

  // Towards the instance.
  Connection* find(ChainInstance& instance, uint32_t flow) const;
  static void prefetch_after(const Connection& c);
  void serve(Connection& c);
  bool tell_news(Connection& c);
  bool tell(Connection& c, MessageKind kind, const void* data, uint32_t len, uint8_t stage);
  void push(Fwp& fwp, Connection& c, MessageKind kind, uint32_t len, uint8_t stage);
  void read(Connection& c);
  bool may_read(const Connection& c) const;
  bool within_quota(const Connection& c) const;
  void linger(Connection& c);

  // Towards the peer.
  bool write(Connection& c, const iovec* pieces, uint32_t count);
  ssize_t send_datagram(const Connection& c, const iovec& piece);
  bool write_datagrams(Connection& c, const iovec* pieces, uint32_t count);
  void flush(Connection& c);
  void finish(Connection& c);
  void close_for_guest(Connection& c);
  static void count_departing(Connection& c);
  void shut_writing(Connection& c);
  void set_pressure(Connection& c, bool over, uint16_t waiting_stages);
  void update_pressure(Connection& c);
  uint32_t output_limit(const Connection& c) const;

  // Lives and lists.
  Connection& new_connection();
  void bind_instance(Connection& c, ChainInstance& instance, uint32_t flow);
  void detach(Connection& c);
  void lose(Connection& c, Ending ending, bool reset = false);
  void release(Connection& c);
  void schedule(Connection& c);
  void park(Connection& c);
  void wait(Connection& c, uint64_t until_ns);
  void hold_back(Connection& c);
  void wake_held_back(ChainInstance& instance);
  void unplace(Connection& c);
  void wake_parked(ChainInstance& instance);
  void set_deadline(Connection& c, Deadlines* deadlines);
  void touch(Connection& c);
  void expire_list(Deadlines& deadlines, uint32_t& most);

  const std::vector<Port*>& ports_;
  std::vector<UpstreamSettings> upstreams_;
  uint32_t upstreams_open_ = 0;  // sockets
  uint32_t upstreams_max_;       // so that there are files left for clients
  Dispatcher& dispatcher_;
  ReadyList& ready_;
  Descriptor epoll_;
  int spare_fd_;  // given up for a moment to refuse a client when there are no descriptors left
  std::vector<std::unique_ptr<Service>> services_;
  std::deque<Connection> all_;
  std::vector<Connection*> free_;
  FlowIndex index_;
  WorkList work_;
  WorkList waiting_;  // for their tenant's quota, or for an answer about their client
  uint64_t waiting_until_ns_ = UINT64_MAX;
  uint64_t answers_seen_ = 0;  // about clients that no rule matches
  Deadlines connecting_;
  Deadlines lingering_;
  uint64_t now_ns_ = 0;
  uint64_t time_ns_ = 0;  // since 1970
  uint64_t serial_ = 0;
  uint64_t received_ = 0;
  struct DatagramBuffers;
  struct DatagramDeleter {
    void operator()(DatagramBuffers* buffers) const;
  };
  std::unique_ptr<DatagramBuffers, DatagramDeleter> datagrams_;
};

}  // namespace edgeos
