// Programs that choose a worker for a packet by its client's address alone, so that all packets of a client, in both directions
// and through all ports of a node, come to the same worker.
//
// At a port where clients' packets enter chains the client is the source; at one where they leave, and their answers come
// back, it is the destination. IPv4 and IPv6, behind up to two VLAN tags; what is neither is chosen for by its Ethernet
// address. The hash is that of listeners' groups. Pure functions; any thread.
#pragma once

#include <linux/bpf.h>
#include <linux/filter.h>

#include <cstdint>
#include <vector>

#include "bpf_assembler.hpp"

namespace edgeos {

// Classic BPF, for packet sockets: its result is the number of a worker, below `workers`.
std::vector<sock_filter> steering_program(bool by_destination, uint32_t workers);

// The same for where the kernel asks for extended BPF with a socket's packets. For the few instructions that steering programs have.
std::vector<bpf_insn> to_extended(const std::vector<sock_filter>& program);

// The same choice in an XDP program that has its context in kContext: leaves the worker's number in R2, and goes on.
void steer(Assembler& a, bool by_destination, uint32_t workers);

}  // namespace edgeos
