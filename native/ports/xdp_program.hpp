// The XDP program of an AF_XDP port: packets that meet any of the given terms go to the socket of the queue they came in
// at, all others to the kernel's own stack, and so do those of a queue without a socket.
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

// Without terms everything is taken. With `map` -1 the program answers XDP_REDIRECT without a map, for tests of the terms.
std::vector<bpf_insn> make_xdp_program(const std::vector<Rule>& terms, int map);

}  // namespace edgeos
