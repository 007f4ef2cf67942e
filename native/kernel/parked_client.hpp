// A client whose FWPs were parked: what they hold beyond their checkpoints, in one block of bytes, and whose it is.
//
// Owner: Parking, on the data-plane thread. The bytes are wiped when they go.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "intrusive_list.hpp"
#include "packet_parser.hpp"
#include "rule.hpp"

namespace edgeos {

class Chain;
class Parking;
class Tenant;

// Why what was parked is dropped and not resumed.
enum class Unkept : uint8_t {
  keep_memory,    // the chain's parked clients took more than keep_memory; those parked longest go first
  tenant_memory,  // the tenant's memory was needed for clients that are there
  keep_timeout,   // parked for so long
  removed,        // its chain or tenant was removed, or the node lets nobody in any more
  changed,        // it came back as another tenant's client, or with FWPs for another unit
  failed,         // it could not be laid over fresh FWPs
  count
};

inline constexpr std::array<std::string_view, size_t(Unkept::count)> kUnkeptNames = {
    "keep_memory", "tenant_memory", "keep_timeout", "removed", "changed", "failed"};

// Law: parked = resumed + dropped + clients.
struct ParkingCounters {
  uint64_t parked = 0;
  uint64_t resumed = 0;
  uint64_t clients = 0;  // now
  uint64_t bytes = 0;    // now
  std::array<uint64_t, size_t(Unkept::count)> dropped{};
  // Left and were not parked, though their chain keeps clients.
  uint64_t too_large = 0;  // alone larger than keep_memory, or than what is left of the tenant's memory
  uint64_t connected = 0;  // had to give way with connections open
};

struct ParkedClient {
  FlowKey owner;
  Isolation isolation = Isolation::client;
  Chain* chain = nullptr;
  Tenant* tenant = nullptr;
  uint64_t parked_ns = 0;
  uint64_t memory = 0;      // bytes that its FWPs will have when it is back
  uint32_t flows_ever = 0;  // flow numbers are not used again
  uint32_t len = 0;
  std::unique_ptr<uint8_t[]> bytes;
  Link<ParkedClient> chain_link;
  Link<ParkedClient> tenant_link;

  ParkedClient() = default;
  ParkedClient(const ParkedClient&) = delete;
  ParkedClient& operator=(const ParkedClient&) = delete;
  ~ParkedClient();

  std::span<const uint8_t> image() const { return {bytes.get(), len}; }
  uint64_t size() const;  // that it is charged with
};

using ParkedList = List<ParkedClient, &ParkedClient::chain_link>;
using ParkedTenantList = List<ParkedClient, &ParkedClient::tenant_link>;

}  // namespace edgeos
