// The few bpf(2) calls that an AF_XDP port needs, made directly: a map from queue to socket or from worker to device, a
// program, and a link that attaches the program to a device for as long as its descriptor is open, so that nothing outlives
// the processes that have it.
//
// Owner: the port; set-up only. Each call returns a descriptor of the caller's or throws with `device` and the fix.
#pragma once

#include <linux/bpf.h>

#include <string>
#include <vector>

namespace edgeos {

int make_socket_map(const std::string& device, uint32_t queues);
void set_map_socket(const std::string& device, int map, uint32_t queue, int socket);
int make_device_map(const std::string& device, uint32_t workers);
// The interface is one of the caller's network namespace.
void set_map_device(const std::string& device, int map, uint32_t worker, int interface);
int load_xdp_program(const std::string& device, const std::vector<bpf_insn>& program);

// For a TAP device of several queues: its result is the number of a queue.
int load_steering_program(const std::string& device, const std::vector<bpf_insn>& program);

// -1 with errno when the device refuses; `flags` is XDP_FLAGS_DRV_MODE or XDP_FLAGS_SKB_MODE.
int try_xdp_link(int program, int interface, uint32_t flags);

}  // namespace edgeos
