// Sockets that connections and datagrams come in by: one, or a group that several worker processes share.
//
// In a group each worker has a socket of its own. The kernel chooses among them by the client's address alone, so that a client
// always comes to the same worker. Whoever makes the group keeps it: a worker that starts again takes its old socket, with its
// place in the group and with those who wait in it.
//
// Owner: the caller, who closes the descriptors and removes a Unix socket's file. Any thread. Throws std::system_error or
// std::runtime_error that say what was tried and the fix; then nothing stays open.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace edgeos {

enum class ListenerKind : uint8_t { tcp, udp, unix_stream };

struct ListeningPlace {
  ListenerKind kind = ListenerKind::tcp;
  std::string address;  // or the path of a Unix socket
  uint16_t port = 0;    // 0: one that the system chooses
  int backlog = 1024;
  uint32_t mode = 0660;  // of a Unix socket's file
};

// Such as "127.0.0.1:80", or a path.
std::string place_text(const ListeningPlace& place);

// Bound, and listening where it is no UDP socket; does not block.
int open_listening_socket(const ListeningPlace& place);

// So many, in the order of their places in the group. `by_source` chooses by the client's address; without, by its port too.
// A Unix socket cannot be shared that way: it is one, and all have it.
std::vector<int> open_listening_group(const ListeningPlace& place, uint32_t sockets, bool by_source);

}  // namespace edgeos
