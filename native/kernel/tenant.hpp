// A tenant: who pays for clients, with quotas on what all of them may use together. Rules name it.
//
// Messages meet a tenant's quotas once, on entry to the first ring; what its guests go on to use (CPU time, copies, memory)
// is charged after each burst and makes later messages wait or be dropped. Clients without a tenant cost one comparison.
//
// Owner: the worker; not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "drop.hpp"
#include "parked_client.hpp"
#include "rate.hpp"

namespace edgeos {

class Fwp;
struct Run;

struct Quotas {  // 0: no limit
  uint64_t cpu_ns = 0;        // CPU time of guests, nanoseconds in a second
  uint64_t memory = 0;        // bytes of its FWPs' memories, and of what is parked of them
  uint64_t fwps = 0;
  uint64_t clients = 0;
  uint64_t copied_bytes = 0;  // a second, that the mover copies for it
  uint64_t messages = 0;      // a second, from ports
  uint64_t new_clients = 0;   // a second
};

struct TenantSpec {
  std::string name;
  Quotas quotas;
};

struct TenantCounters {
  uint64_t received = 0;  // messages that were let in
  uint64_t received_bytes = 0;
  uint64_t copied_bytes = 0;
  uint64_t cpu_ns = 0;
  uint64_t memory = 0;  // now
  uint64_t parked = 0;  // of that, of clients that are away
  uint64_t fwps = 0;    // now
  uint64_t clients = 0; // now
  uint64_t admitted = 0;  // clients
  DropCounts refused{};  // messages, or connections of listeners, that a quota turned away
  uint64_t killed = 0;    // FWPs whose memory outgrew the quota
};

class Tenant {
 public:
  explicit Tenant(TenantSpec spec);

  const std::string& name() const { return name_; }
  const Quotas& quotas() const { return quotas_; }
  void change(const Quotas& quotas);
  // No rule names it any more; its clients stay under its quotas until they leave.
  void remove();
  bool removed() const { return removed_; }

  // ---- Messages ----
  // Whether one more may enter, and if not, why.
  bool admits(uint64_t now_ns, Drop& why) const;
  void enter(uint32_t bytes, uint64_t now_ns) {
    messages_.take(1, now_ns);
    copies_.take(bytes, now_ns);
    counters.received++;
    counters.received_bytes += bytes;
    counters.copied_bytes += bytes;
  }
  // Whether its guests may use CPU time now.
  bool may_run(uint64_t now_ns) const { return cpu_.allows(now_ns); }
  // When a message may enter again.
  uint64_t admits_at_ns() const {
    return std::max({messages_.allows_at_ns(), copies_.allows_at_ns(), cpu_.allows_at_ns()});
  }

  // ---- Clients ----
  // Whether one more may come, with so many FWPs of so many bytes in all.
  bool admits_client(uint64_t fwps, uint64_t memory, uint64_t now_ns, Drop& why) const;
  void enter_client(uint64_t places, uint64_t now_ns);
  void leave_client(uint64_t places);

  // ---- FWPs ----
  bool has_memory(uint64_t bytes) const { return quotas_.memory == 0 || counters.memory + bytes <= quotas_.memory; }
  // The same, and what is parked gives way where that helps, the longest parked first.
  bool obtain_memory(uint64_t bytes);
  void bind(Fwp& fwp);
  void unbind(Fwp& fwp);
  void charge_growth(Fwp& fwp);
  // After a burst that used so much CPU time: charges it, the copies and what the memory grew by. False when its memories have
  // outgrown the quota by that.
  bool charge(const Run& run, uint64_t used_ns, uint64_t now_ns);
  void charge_cpu(uint64_t used_ns, uint64_t now_ns) {
    cpu_.take(used_ns, now_ns);
    counters.cpu_ns += used_ns;
  }

  // ---- Parked clients ----
  void park(ParkedClient& client, Parking& parking);
  void unpark(ParkedClient& client);

  void refuse(Drop why, uint32_t messages = 1) { counters.refused[size_t(why)] += messages; }

  TenantCounters counters;

 private:
  std::string name_;
  Quotas quotas_;
  bool removed_ = false;
  Rate cpu_;
  Rate copies_;
  Rate messages_;
  Rate new_clients_;
  ParkedTenantList parked_;     // the longest parked first
  Parking* parking_ = nullptr;  // where those are
};

}  // namespace edgeos
