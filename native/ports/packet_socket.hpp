// Packet sockets bound to a network interface: one, or a group of which each worker process has one.
//
// In a group the kernel chooses a socket for each packet by its client's address, see steering.hpp. Whoever makes the group
// keeps it: a worker that starts again takes its old socket, with its place in the group and the packets that wait in it.
//
// Owner: the caller, who closes the descriptors. Any thread. Throws std::system_error that says what was tried and the fix;
// then nothing stays open.
#pragma once

#include <string>
#include <vector>

#include "descriptor.hpp"

namespace edgeos {

int open_packet_socket(const std::string& device);

// Sends only, and takes virtio headers. `promiscuous`: the device hands over packets for other machines, too, meanwhile.
int open_sending_socket(const std::string& device, bool promiscuous);

// So many, in the order of their places. `by_destination`: clients are at the other end of what arrives here.
std::vector<int> open_packet_group(const std::string& device, uint32_t sockets, bool by_destination);

}  // namespace edgeos
