// A featherweight process: a Wasm instance with its ring, its owner and its state.
//
// Owner: the pool it came from. Threading: the thread that moves messages; while `running`, the instance itself belongs to
// the executor, and the ring's cursors still to the mover.
//
// States: ready (at the checkpoint, in its pool) -> active (bound to a chain instance) -> dirty (left or killed, its memory
// not to be used again) -> ready, after its memory has been returned to the checkpoint.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <vector>

#include "fwp_template.hpp"
#include "limits.hpp"
#include "message.hpp"
#include "prefetch.hpp"
#include "timers.hpp"

namespace edgeos {

struct ChainInstance;

enum class FwpState : uint8_t { empty, ready, active, dirty };

// The slots of one FWP, first in first out. The cursors run freely and are the kernel's alone. When the ring is empty they
// start over, so that a client with little traffic stays in slot 0 and touches few pages.
struct Ring {
  uint32_t head = 0;    // next message to handle
  uint32_t tail = 0;    // next free slot
  uint32_t mask = 0;    // slots - 1
  uint32_t size() const { return tail - head; }
  uint32_t index(uint32_t cursor) const { return cursor & mask; }
  void restart_if_empty() {
    if (head == tail) head = tail = 0;
  }
};

// An FWP's slots, to be held in registers while messages are copied: behind a pointer, every byte stored would make the
// compiler load these again.
struct Slots {
  GuestMessage* messages;
  MessageMeta* meta;
  uint8_t* data;
  uint32_t stride;
  uint32_t size;     // bytes of the largest message
  uint32_t address;  // of slot 0 in the guest
  uint32_t mask;
};

class alignas(64) Fwp {
 public:
  explicit Fwp(const FwpTemplate& tmpl);
  ~Fwp() { destroy(); }
  Fwp(const Fwp&) = delete;
  Fwp& operator=(const Fwp&) = delete;

  // empty or dirty -> ready: a fresh instance at the checkpoint. False, and empty, when the engine cannot make one.
  bool instantiate(std::string* why = nullptr);
  // Any state but active -> empty: gives the instance back to the engine.
  void destroy();
  // ready -> active.
  void activate(ChainInstance* owner, uint8_t stage);
  // active -> dirty.
  void retire();

  // Starts to bring this record near, for what follows.
  void prefetch_record() const {
    const auto* lines = reinterpret_cast<const uint8_t*>(this);
    for (uint32_t offset = 0; offset < kHotBytes; offset += 64) prefetch_line(lines + offset);
  }
  // Starts to bring near where its next message will be put, while something else goes on.
  void prefetch_slot() const {
    if (memory == nullptr) return;
    const uint32_t next = ring.index(ring.tail);
    prefetch_line(messages_ + next);
    prefetch_line(slot(next));
    prefetch_line(&meta[next]);
  }
  // And what a call will use.
  void prefetch_call() const {
    if (memory == nullptr) return;
    prefetch_line(verdicts_);
    for (const uint32_t offset : kContextHot) prefetch_line(reinterpret_cast<const uint8_t*>(context) + offset);
    for (const int32_t offset : {-128, -64, 0}) prefetch_line(static_cast<const uint8_t*>(burst.opaque) + offset);
    const uint32_t stack = tmpl_->layout().stack;
    prefetch_line(memory + (stack >= 64 ? stack - 64 : 0));
  }
  void prefetch() const {
    prefetch_slot();
    prefetch_call();
  }
  FwpState state() const { return state_; }
  const FwpTemplate& tmpl() const { return *tmpl_; }

  // A function that the guest exports; false when there is none of that name.
  bool find_function(std::string_view name, wasmtime_func_t& function) const;

  // Bytes of the memory now; asks the engine, since a guest may have grown it.
  uint64_t refresh_memory_size();
  // As if the guest had; false when it may not have so much.
  bool grow_memory(uint64_t bytes);

  // The guest's mutable globals, in the order in which its checkpoint lists them.
  struct Global {
    uint8_t kind = 0;
    std::array<uint8_t, 16> bytes{};
    bool operator==(const Global&) const = default;
  };
  std::vector<Global> globals() const;
  bool set_global(uint32_t number, const Global& global);

  Slots slots() const { return {messages_, meta.get(), data_, stride_, slot_size, data_address_, ring.mask}; }
  GuestMessage* messages() const { return messages_; }
  const int32_t* verdicts() const { return verdicts_; }
  uint8_t* slot(uint32_t index) const { return data_ + uint64_t{index} * stride_; }
  uint32_t slot_address(uint32_t index) const { return data_address_ + index * stride_; }

  // Read by the mover for every message, so kept together and public.
  uint8_t* memory = nullptr;
  uint64_t memory_size = 0;
  uint32_t slot_size = 0;
  Ring ring;
  std::unique_ptr<MessageMeta[]> meta;  // one for each slot
  ChainInstance* owner = nullptr;
  Fwp* next_ready = nullptr;  // link of the ready list
  uint32_t turn = kBurst;  // messages in its next burst, see turns.hpp
  uint8_t stage = 0;
  bool queued = false;   // in the ready list
  bool running = false;  // handed to the executor
  bool watched = false;  // the CPU time of its bursts is measured

  wasmtime_context_t* context = nullptr;
  wasmtime_func_t burst{};

 private:
  void find_memory();
  bool find_global(uint32_t number, wasmtime_global_t& global) const;

  static constexpr uint32_t kHotBytes = 128;  // of this record, that each message needs
  // What a call uses of its context in the library's version that is in use; with another one a call would be slower.
  static constexpr uint32_t kContextHot[] = {0x840, 0x880};

  const FwpTemplate* tmpl_;
  GuestMessage* messages_ = nullptr;
  const int32_t* verdicts_ = nullptr;
  uint8_t* data_ = nullptr;
  uint32_t stride_ = 0;
  uint32_t data_address_ = 0;
  wasmtime_store_t* store_ = nullptr;
  wasmtime_instance_t instance_{};
  wasmtime_memory_t memory_export_{};
  FwpState state_ = FwpState::empty;

 public:
  uint64_t charged_memory = 0;  // of memory_size, what its tenant has been charged
  Timers timers;  // of guests that were granted them
};

}  // namespace edgeos
