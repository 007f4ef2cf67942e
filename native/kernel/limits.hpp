// Limits of the kernel, all in one place and checked at compile time. Sizes in bytes, times in nanoseconds.
#pragma once

#include <cstdint>

namespace edgeos {

inline constexpr uint32_t kBurst = 64;            // messages in one call of a guest, and in one read of a port
inline constexpr uint32_t kSlotsMin = 8;          // slots of one FWP's ring; a power of two
inline constexpr uint32_t kSlotsMax = 256;
inline constexpr uint32_t kSlotSizeMax = 65536;   // largest message
inline constexpr uint32_t kStagesMax = 16;        // FWPs in one chain
inline constexpr uint32_t kOutPortsMax = 16;      // out ports of one stage
inline constexpr uint32_t kPortsMax = 64;         // ports of one node
inline constexpr uint32_t kChainsMax = 256;       // chains of one node
inline constexpr uint32_t kHopsMax = 64;          // stages one message may visit; ends a guest's game of ping-pong
inline constexpr uint32_t kEmitsMax = 64;         // messages of its own that a guest may emit in one burst
inline constexpr uint32_t kEmitBytesMax = 256 * 1024;   // and their bytes; bounds the staging buffer of a run
inline constexpr uint32_t kTimersMax = 64;        // timers of one FWP
inline constexpr uint32_t kTimerBurst = 64;       // FWPs whose timers are looked at between two bursts
inline constexpr uint64_t kTimerRetryNs = 1'000'000;    // how soon a timer is tried again whose message found no room
inline constexpr uint32_t kRandomMax = 65536;     // bytes of randomness in one call
inline constexpr uint32_t kStreamOpsMax = 1024;   // edgeos_send and the like in one burst, towards sockets
inline constexpr uint32_t kDatagramBurst = 32;    // datagrams in one read of a socket
inline constexpr uint32_t kDatagramBytesMax = 65507;  // of a UDP datagram over IPv4
inline constexpr uint32_t kUpstreamsPerInstanceMax = 256;  // connections that one chain instance may have opened
inline constexpr uint32_t kUpstreamsMin = 64;     // that all may have in any case, however few files may be open
inline constexpr uint32_t kSpareDescriptors = 256;  // open files that are for neither clients nor upstreams
inline constexpr uint32_t kCountersMax = 256;     // named counters of one guest
inline constexpr uint32_t kGlobalsMax = 1024;     // globals of one guest
inline constexpr uint32_t kFlowsPerClientMax = 1024;    // so that one client's port scan cannot fill the flow table
inline constexpr uint32_t kHeldFragmentsMax = 256;      // fragments that wait for their first one: of five datagrams of the largest size
inline constexpr uint32_t kUndecidedMax = 256;          // messages that wait for an answer about their clients
inline constexpr uint32_t kUndecidedPerClient = 4;
inline constexpr uint32_t kUndecidedPerPrefix = 64;     // of the clients of one IPv6 network
inline constexpr uint32_t kWaitingShares = 4;           // of the clients that may wait for an answer it has one share
inline constexpr uint64_t kHeldFragmentNs = 1'000'000'000;
inline constexpr uint32_t kRunsInFlight = 8;      // bursts handed to the executor at once when the mover has its own core
inline constexpr uint64_t kTickNs = 1'000'000;    // grain of the CPU budget
inline constexpr uint64_t kSpinNs = 50'000;       // adaptive waiting: how long to poll before blocking
inline constexpr uint64_t kRunNs = 500'000;       // guests run so long at most between two looks at the ports, and a turn more
inline constexpr uint64_t kTurnNs = 200'000;      // what a client may use of each turn; what is beyond costs it turns to come
inline constexpr uint64_t kDebtMaxNs = 1'000'000'000;  // and as much of that is remembered
inline constexpr uint32_t kStayPerResume = 300;   // who was parked stays so many times as long as it took to come back
inline constexpr uint64_t kConnectNs = 10'000'000'000;   // how long opening a connection to an upstream may take
inline constexpr uint64_t kLingerNs = 5'000'000'000;     // how long a closed connection waits for its peer, without progress
inline constexpr uint32_t kHotPagesMax = 16;      // pages of an FWP that are made present before it is activated

static_assert((kSlotsMax & (kSlotsMax - 1)) == 0 && kBurst <= kSlotsMax);
static_assert(kHopsMax < 256 && kStagesMax < 256 && kPortsMax < 256, "kept in one byte each");
static_assert(kEmitBytesMax >= kSlotSizeMax, "one message of any size can be emitted");

}  // namespace edgeos
