// Pairs of veth devices whose traffic is that of an AF_XDP port alone: nothing but what is sent into one end comes out at
// the other. And what a device has counted, and how an XDP program is attached to it.
//
// Set-up, and counting now and then. Throws with `device`, the port's own, and the fix.
#pragma once

#include <optional>
#include <string>

#include "route_socket.hpp"
#include "xdp_link.hpp"

namespace edgeos {

// Makes a pair in the caller's network namespace; both ends are up. Needs CAP_NET_ADMIN.
void make_quiet_pair(const std::string& device, const std::string& one, const std::string& other, uint32_t mtu);

// Packets that were to be sent by the interface and were dropped, as its driver has counted; empty when it cannot be asked.
std::optional<uint64_t> dropped_sending(const RouteSocket& socket, int interface);

// Empty when no program is attached.
std::optional<XdpMode> attached_mode(const std::string& device, int interface);

}  // namespace edgeos
