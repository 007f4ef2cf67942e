// Why messages are discarded and why FWPs are killed. Each discarded message is counted once, under one reason.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace edgeos {

enum class Drop : uint8_t {
  verdict,          // the guest said EDGEOS_DROP
  oversize,         // larger than the slots of the stage it was meant for
  ring_full,        // its client's chain holds as many messages as it may
  killed,           // its FWP was killed before handling it
  tx_full,          // the port it was sent to had no room, or cannot send
  no_rule,          // no rule matches
  rule,             // a rule says drop
  malformed,        // shorter than an Ethernet header
  max_clients,      // a new client, and its rule lets no more in
  max_fwps,         // a new client, and the chain is at its limit
  no_fwp,           // no FWP could be made
  no_entry,         // its flow's chain has no entry at the port it came through
  blocked,          // its client's FWP was killed and the chain fails closed
  hop_limit,        // visited more stages than any chain has
  fragment_orphan,  // a later fragment whose first one never came
  fragments_full,   // a later fragment that waited for its first one, and gave way: too many wait, most of them its sender's
  evicted,          // in flight when the node stopped
  no_connection,    // the connection it was meant for is gone, or takes no more
  new_clients,      // a new client, and they come faster than its rule, chain or tenant allows
  tenant_messages,  // its tenant's messages come faster than its quota allows
  tenant_copies,    // its tenant has more bytes copied than its quota allows
  tenant_cpu,       // its tenant's guests have used their CPU time
  tenant_clients,   // a new client, and its tenant has as many as it may
  tenant_fwps,      // a new client, and its tenant has as many FWPs as it may
  tenant_memory,    // a new client or a fresh FWP, and its tenant's FWPs have as much memory as they may
  undecided,        // no rule matches, an answer is awaited, and as many of its client's messages wait as may
  unasked,          // no rule matches, and too many clients wait for an answer or are remembered
  unmatched,        // no rule matches, and the answer, or the default, was to drop
  draining,         // a new client, and the node lets nobody in any more
  count
};

inline constexpr std::array<std::string_view, size_t(Drop::count)> kDropNames = {
    "verdict", "oversize", "ring_full", "killed", "tx_full", "no_rule", "rule", "malformed",
    "max_clients", "max_fwps", "no_fwp", "no_entry", "blocked", "hop_limit", "fragment_orphan", "fragments_full", "evicted",
    "no_connection", "new_clients", "tenant_messages", "tenant_copies", "tenant_cpu", "tenant_clients", "tenant_fwps",
    "tenant_memory", "undecided", "unasked", "unmatched", "draining"};

enum class Kill : uint8_t {
  none,
  budget,       // used more CPU time than its budget in one burst
  stack,        // call stack exhausted
  memory,       // access outside its memory
  trap,         // any other trap: unreachable, division by zero, bad indirect call
  bad_length,   // gave a message a length beyond its capacity
  bad_pointer,  // pointed a message outside its memory
  bad_port,     // a verdict that names no out port
  tenant_memory,  // grew its memory beyond what its tenant's FWPs may have together
  count
};

inline constexpr std::array<std::string_view, size_t(Kill::count)> kKillNames = {
    "none", "budget", "stack", "memory", "trap", "bad_length", "bad_pointer", "bad_port", "tenant_memory"};

using DropCounts = std::array<uint64_t, size_t(Drop::count)>;
using KillCounts = std::array<uint64_t, size_t(Kill::count)>;

}  // namespace edgeos
