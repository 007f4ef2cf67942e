// The XDP programs of AF_XDP ports. Packets that meet any of the given terms are taken, all without terms: they go to the
// socket of the queue they came in at; or, when a device is shared by several workers, on to the device of one of them, by
// the client's address (steering.hpp). All others go to the kernel's own stack, and so do those of a queue without a socket.
//
// Terms are the matches of rules (kernel/rule.hpp) seen from the single packet: source is who sent it. Ports are those of
// TCP, UDP, SCTP and UDP-Lite; later fragments have none; up to four IPv6 extension headers are passed over.
// Pure functions: no owner, any thread, no counters. Sources: the kernel's Documentation/bpf/standardization, RFC 9669.
#pragma once

#include <linux/bpf.h>

#include <cstdint>
#include <vector>

#include "../kernel/rule.hpp"

namespace edgeos {

inline constexpr uint32_t kTakeTermsMax = 32;

// With `map` -1 the program answers XDP_REDIRECT without a map, for tests of the terms.
std::vector<bpf_insn> make_xdp_program(const std::vector<Rule>& terms, int map);

struct XdpSpread {
  int map;                      // of devices, one for each worker; -1: the answer is XDP_REDIRECT + the worker, for tests
  uint32_t workers;
  bool by_destination = false;  // clients are at the other end of what arrives
  int queue = -1;               // whose packets alone are taken; -1 for all
};

// What cannot be handed on is dropped: it is never another worker's, nor the kernel's.
std::vector<bpf_insn> make_spreading_program(const std::vector<Rule>& terms, const XdpSpread& spread);

}  // namespace edgeos
