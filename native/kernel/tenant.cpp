#include "tenant.hpp"

#include "executor.hpp"
#include "fwp.hpp"
#include "parking.hpp"

namespace edgeos {
namespace {

constexpr uint64_t kCpuInHandNs = 100'000'000;  // a tenant may use so much of its second's CPU time at once

// Bytes that the mover is about to copy: of messages that go on, and of what the guest has made itself. The guest does not run,
// so what it wrote stands still; each length is held to the slot's size here, and checked again where it is used.
uint64_t bytes_to_copy(const Run& run) {
  const Fwp& fwp = *run.fwp;
  uint64_t bytes = run.bytes.size();
  for (uint32_t slot = run.first; slot < run.first + run.count; slot++) {
    const int32_t verdict = fwp.verdicts()[slot];
    const bool stays = verdict == kVerdictDrop || verdict == kVerdictDone;
    if (!stays) bytes += std::min(fwp.messages()[slot].len, fwp.slot_size);
  }
  return bytes;
}

}  // namespace

Tenant::Tenant(TenantSpec spec)
    : name_(std::move(spec.name)),
      quotas_(spec.quotas),
      cpu_(quotas_.cpu_ns, kCpuInHandNs),
      copies_(quotas_.copied_bytes),
      messages_(quotas_.messages),
      new_clients_(quotas_.new_clients) {}

void Tenant::change(const Quotas& quotas) {
  quotas_ = quotas;
  cpu_.change(quotas.cpu_ns);
  copies_.change(quotas.copied_bytes);
  messages_.change(quotas.messages);
  new_clients_.change(quotas.new_clients);
}

bool Tenant::admits(uint64_t now_ns, Drop& why) const {
  if (!messages_.allows(now_ns)) return why = Drop::tenant_messages, false;
  if (!copies_.allows(now_ns)) return why = Drop::tenant_copies, false;
  if (!cpu_.allows(now_ns)) return why = Drop::tenant_cpu, false;
  return true;
}

bool Tenant::admits_client(uint64_t fwps, uint64_t memory, uint64_t now_ns, Drop& why) const {
  if (quotas_.clients != 0 && counters.clients >= quotas_.clients) return why = Drop::tenant_clients, false;
  if (quotas_.fwps != 0 && counters.fwps + fwps > quotas_.fwps) return why = Drop::tenant_fwps, false;
  if (!new_clients_.allows(now_ns)) return why = Drop::new_clients, false;
  if (!has_memory(memory)) return why = Drop::tenant_memory, false;  // last: what is parked may give way
  return true;
}

void Tenant::enter_client(uint64_t places, uint64_t now_ns) {
  new_clients_.take(1, now_ns);
  counters.admitted++;
  counters.clients++;
  counters.fwps += places;
}

void Tenant::leave_client(uint64_t places) {
  counters.clients--;
  counters.fwps -= places;
}

void Tenant::bind(Fwp& fwp) {
  fwp.charged_memory = fwp.memory_size;
  counters.memory += fwp.charged_memory;
}

void Tenant::unbind(Fwp& fwp) {
  counters.memory -= fwp.charged_memory;
  fwp.charged_memory = 0;
}

void Tenant::remove() {
  removed_ = true;
  while (!parked_.empty()) parking_->drop(*parked_.front(), Unkept::removed);
}

bool Tenant::obtain_memory(uint64_t bytes) {
  const bool helps = quotas_.memory != 0 && counters.memory - counters.parked + bytes <= quotas_.memory;
  while (helps && !has_memory(bytes)) parking_->drop(*parked_.front(), Unkept::tenant_memory);
  return has_memory(bytes);
}

void Tenant::park(ParkedClient& client, Parking& parking) {
  parking_ = &parking;
  parked_.push_back(client);
  counters.memory += client.size();
  counters.parked += client.size();
}

void Tenant::unpark(ParkedClient& client) {
  parked_.remove(client);
  counters.memory -= client.size();
  counters.parked -= client.size();
}

void Tenant::charge_growth(Fwp& fwp) {
  const uint64_t memory = fwp.refresh_memory_size();
  counters.memory += memory - fwp.charged_memory;
  fwp.charged_memory = memory;
}

bool Tenant::charge(const Run& run, uint64_t used_ns, uint64_t now_ns) {
  Fwp& fwp = *run.fwp;
  charge_cpu(used_ns, now_ns);
  if (run.result == Kill::none) {
    const uint64_t bytes = bytes_to_copy(run);
    copies_.take(bytes, now_ns);
    counters.copied_bytes += bytes;
  }
  const uint64_t before = fwp.charged_memory;
  charge_growth(fwp);
  if (fwp.charged_memory == before || obtain_memory(0)) return true;
  counters.killed++;
  return false;
}

}  // namespace edgeos
