#include "parking.hpp"

#include <string.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "clock.hpp"
#include "memory_difference.hpp"
#include "turns.hpp"

namespace edgeos {
namespace {

constexpr uint64_t kTableBytes = 64;  // of the table of clients, for each of them, and of the allocator

constexpr size_t kBlockHeld = 1 << 20;  // bytes that are held for the next block

void wipe(std::vector<uint8_t>& bytes) {
  if (!bytes.empty()) explicit_bzero(bytes.data(), bytes.size());
  bytes.clear();
  if (bytes.capacity() > kBlockHeld) std::vector<uint8_t>().swap(bytes);
}

// Room for so many bytes more. What stands there already is not left behind in memory that goes back to the system's.
void make_room(std::vector<uint8_t>& bytes, size_t more) {
  if (bytes.capacity() - bytes.size() >= more) return;
  std::vector<uint8_t> larger;
  larger.reserve(bytes.size() + more);
  larger = bytes;
  wipe(bytes);
  bytes.swap(larger);
}

void put_bytes(std::vector<uint8_t>& block, const void* data, size_t len) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  block.insert(block.end(), bytes, bytes + len);
}

bool take_bytes(std::span<const uint8_t>& block, size_t len, std::span<const uint8_t>& bytes) {
  if (len > block.size()) return false;
  bytes = block.first(len);
  block = block.subspan(len);
  return true;
}

constexpr size_t kHeadMax = 64 + kTimersMax * sizeof(Timers::Timer);  // bytes of a stage beside its globals and image

struct SavedGlobal {
  uint16_t number;
  Fwp::Global global;
};

}  // namespace

ParkedClient::~ParkedClient() {
  if (bytes != nullptr) explicit_bzero(bytes.get(), len);
}

uint64_t ParkedClient::size() const { return sizeof(ParkedClient) + kTableBytes + len; }

struct Parking::Stage {
  uint64_t number = 0;
  uint64_t memory = 0;
  std::span<const uint8_t> globals;  // SavedGlobal[]
  std::span<const uint8_t> timers;   // Timers::Timer[]
  std::span<const uint8_t> image;
};

bool Parking::park(ChainInstance& instance, Tenant* payer, uint64_t now_ns) {
  Chain& chain = *instance.chain;
  ParkingCounters& counters = chain.counters.parking;
  const uint64_t started_ns = monotonic_ns();
  if (instance.blocked || !instance.returns) return false;
  if (!instance.streams.connections.empty()) {
    counters.connected++;
    return false;
  }
  auto client = std::make_unique<ParkedClient>();
  const uint64_t most = std::min<uint64_t>(chain.spec().keep_memory, std::numeric_limits<uint32_t>::max());
  bool fits = true;
  for (uint8_t i = 0; fits && i < chain.spec().stages.size(); i++) {
    Fwp* fwp = instance.fwps[i];
    if (fwp != nullptr) fwp->refresh_memory_size();
    client->memory += fwp != nullptr ? fwp->memory_size : chain.spec().stages[i].pool->tmpl().layout().memory;
    if (fwp != nullptr) fits = append_stage(*fwp, *chain.spec().stages[i].pool, most);
  }
  if (fits && block_.empty()) return false;  // all its FWPs were killed
  client->len = static_cast<uint32_t>(block_.size());
  if (fits && client->size() <= most) {
    client->bytes = std::make_unique_for_overwrite<uint8_t[]>(block_.size());
    std::memcpy(client->bytes.get(), block_.data(), block_.size());
    client->owner = instance.owner;
    client->isolation = instance.isolation;
    client->chain = &chain;
    client->tenant = instance.tenant;
    client->parked_ns = now_ns;
    client->flows_ever = instance.flows_ever;
    counters.parked++;
  } else {
    counters.too_large++;
    client.reset();
  }
  wipe(block_);
  const bool parks = client != nullptr;
  if (parks) {
    enter(std::move(client));
    keep_to_limit(chain);
  }
  const uint64_t used_ns = monotonic_ns() - started_ns;
  if (parks) chain.parking_times->park.add(used_ns);
  if (payer != nullptr) payer->charge_cpu(used_ns, now_ns);
  return parks;
}

bool Parking::append_stage(const Fwp& fwp, const Pool& pool, size_t most) {
  const Origin& origin = pool.origin();
  const std::span<const uint8_t> memory{fwp.memory, fwp.memory_size};
  const std::vector<MemoryArea> areas = without(touched_.of(memory), origin.left_out);
  const std::vector<Fwp::Global> globals = fwp.globals();
  make_room(block_, kHeadMax + globals.size() * sizeof(SavedGlobal) + std::min(most + kOvershoot, largest_image(areas)));
  put_number(block_, fwp.stage);
  put_number(block_, fwp.memory_size);
  std::vector<SavedGlobal> changed;
  for (size_t i = 0; i < globals.size(); i++)
    if (globals[i] != origin.globals[i]) changed.push_back({static_cast<uint16_t>(i), globals[i]});
  put_number(block_, changed.size());
  put_bytes(block_, changed.data(), changed.size() * sizeof(SavedGlobal));
  const std::span<const Timers::Timer> timers = fwp.timers.all();
  put_number(block_, timers.size());
  put_bytes(block_, timers.data(), timers.size_bytes());
  const size_t before = block_.size();
  uint32_t len = 0;  // of the image, known when it is there
  put_bytes(block_, &len, sizeof len);
  const size_t left = most - std::min(most, block_.size());
  if (!append_difference(block_, memory, origin.memory, areas, left)) return false;
  len = static_cast<uint32_t>(block_.size() - before - sizeof len);
  std::memcpy(block_.data() + before, &len, sizeof len);
  return true;
}

bool Parking::take_stage(std::span<const uint8_t>& block, Stage& stage) {
  uint64_t globals = 0, timers = 0;
  std::span<const uint8_t> image_len;
  const bool head = take_number(block, stage.number) && take_number(block, stage.memory) && take_number(block, globals) &&
                    globals <= kGlobalsMax && take_bytes(block, globals * sizeof(SavedGlobal), stage.globals) &&
                    take_number(block, timers) && timers <= kTimersMax &&
                    take_bytes(block, timers * sizeof(Timers::Timer), stage.timers) &&
                    take_bytes(block, sizeof(uint32_t), image_len);
  if (!head) return false;
  uint32_t image = 0;
  std::memcpy(&image, image_len.data(), sizeof image);
  return take_bytes(block, image, stage.image);
}

std::unique_ptr<ParkedClient> Parking::take(const FlowKey& owner, Isolation isolation, const Tenant* tenant) {
  const auto found = clients_.find(owner);
  if (found == clients_.end()) return nullptr;
  ParkedClient& client = *found->second;
  if (client.isolation == isolation && client.tenant == tenant) return leave(client);
  drop(client, Unkept::changed);
  return nullptr;
}

bool Parking::resume(std::unique_ptr<ParkedClient> client, ChainInstance& instance, uint64_t now_ns) {
  const uint64_t started_ns = monotonic_ns();
  Chain& chain = *instance.chain;
  Stage stages[kStagesMax];
  size_t count = 0;
  std::span<const uint8_t> block = client->image();
  bool good = true;
  // Memory first: when there is none, nothing has been laid over anything.
  while (good && !block.empty()) {
    Stage& stage = stages[count];
    good = count < kStagesMax && take_stage(block, stage) && stage.number < chain.spec().stages.size() &&
           instance.fwps[stage.number] != nullptr && instance.fwps[stage.number]->grow_memory(stage.memory);
    count++;
  }
  for (size_t i = 0; good && i < count; i++) good = lay_over_stage(stages[i], *instance.fwps[stages[i].number]);
  if (!good) {
    chain.counters.parking.dropped[size_t(Unkept::failed)]++;
    return false;
  }
  for (size_t i = 0; i < count; i++) {
    Fwp& fwp = *instance.fwps[stages[i].number];
    if (instance.tenant != nullptr) instance.tenant->charge_growth(fwp);
    chain.recall_counters(fwp);
    timers_.update(fwp);
  }
  instance.flows_ever = client->flows_ever;
  chain.counters.parking.resumed++;
  const uint64_t used_ns = monotonic_ns() - started_ns;
  chain.parking_times->resume.add(used_ns);
  owe(instance, used_ns);
  instance.stays_until_ns = now_ns + used_ns * kStayPerResume;
  if (instance.tenant != nullptr) instance.tenant->charge_cpu(used_ns, now_ns);
  return true;
}

bool Parking::lay_over_stage(const Stage& stage, Fwp& fwp) {
  for (std::span<const uint8_t> rest = stage.globals; !rest.empty(); rest = rest.subspan(sizeof(SavedGlobal))) {
    SavedGlobal saved;
    std::memcpy(&saved, rest.data(), sizeof saved);
    if (!fwp.set_global(saved.number, saved.global)) return false;
  }
  for (std::span<const uint8_t> rest = stage.timers; !rest.empty(); rest = rest.subspan(sizeof(Timers::Timer))) {
    Timers::Timer timer;
    std::memcpy(&timer, rest.data(), sizeof timer);
    fwp.timers.set(timer.token, timer.due_ns);
  }
  return lay_over(stage.image, {fwp.memory, fwp.memory_size});
}

void Parking::put_back(std::unique_ptr<ParkedClient> client, uint64_t now_ns) {
  Chain& chain = *client->chain;
  client->parked_ns = now_ns;
  enter(std::move(client));
  keep_to_limit(chain);
}

void Parking::enter(std::unique_ptr<ParkedClient> client) {
  ParkedClient& c = *client;
  clients_[c.owner] = std::move(client);  // first: there may be no memory for it
  c.chain->parked.push_back(c);
  c.chain->counters.parking.clients++;
  c.chain->counters.parking.bytes += c.size();
  if (c.tenant != nullptr) c.tenant->park(c, *this);
}

std::unique_ptr<ParkedClient> Parking::leave(ParkedClient& c) {
  c.chain->parked.remove(c);
  c.chain->counters.parking.clients--;
  c.chain->counters.parking.bytes -= c.size();
  if (c.tenant != nullptr) c.tenant->unpark(c);
  const auto found = clients_.find(c.owner);
  std::unique_ptr<ParkedClient> client = std::move(found->second);
  clients_.erase(found);
  return client;
}

void Parking::drop(ParkedClient& client, Unkept why) {
  client.chain->counters.parking.dropped[size_t(why)]++;
  leave(client);
}

void Parking::keep_to_limit(Chain& chain) {
  while (chain.counters.parking.bytes > chain.spec().keep_memory) drop(*chain.parked.front(), Unkept::keep_memory);
}

void Parking::expire(Chain& chain, uint64_t now_ns, uint32_t most) {
  for (; most > 0 && next_expiry_ns(chain) <= now_ns; most--) drop(*chain.parked.front(), Unkept::keep_timeout);
}

uint64_t Parking::next_expiry_ns(const Chain& chain) const {
  const uint64_t timeout_ns = chain.spec().keep_timeout_ns;
  return timeout_ns == 0 || chain.parked.empty() ? UINT64_MAX : chain.parked.front()->parked_ns + timeout_ns;
}

void Parking::drop_all(Chain& chain, Unkept why) {
  while (!chain.parked.empty()) drop(*chain.parked.front(), why);
}

}  // namespace edgeos
