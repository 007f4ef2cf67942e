// A template: native code plus checkpoint, immutable; FWPs are made from it.
//
// Owner: the node. The layout was read from the guest and checked when the checkpoint was made; it is checked again here
// against the limits that the kernel relies on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine.hpp"

namespace edgeos {

struct CounterLayout {
  std::string name;
  uint32_t address;  // of a little-endian uint64_t
};

struct Layout {
  uint32_t slots;
  uint32_t slot_size;
  uint32_t slot_stride;
  uint32_t messages;  // address of GuestMessage[slots]
  uint32_t verdicts;  // address of int32_t[slots]
  uint32_t data;      // address of slot 0
  uint64_t memory;    // bytes of the checkpoint's memory
  uint32_t stack;     // address of the stack's top; 0 when unknown
  std::vector<CounterLayout> counters;
};

// Bytes from the start of a guest's memory to the end of the last page that every first message touches; pages that end
// beyond `most` do not count.
uint64_t hot_bytes(const Layout& layout, uint64_t most);

// What guests may do beyond their messages.
struct Grants {
  bool timer = false;
  bool clock = false;
  bool random = false;
  std::vector<uint32_t> connects;  // numbers of upstreams
};

class FwpTemplate {
 public:
  // `code` comes from Engine::compile of an engine with the same settings. Throws std::runtime_error.
  FwpTemplate(const Engine& engine, std::string name, std::span<const uint8_t> code, Layout layout, uint64_t budget_ns,
              const Grants& grants = {});
  ~FwpTemplate();
  FwpTemplate(const FwpTemplate&) = delete;
  FwpTemplate& operator=(const FwpTemplate&) = delete;

  const Engine& engine() const { return engine_; }
  const std::string& name() const { return name_; }
  const Layout& layout() const { return layout_; }
  const wasmtime_instance_pre_t* instance_pre() const { return instance_pre_; }
  const Grants& grants() const { return grants_; }
  // Whether its guests can send messages of their own.
  bool emits() const { return emits_; }
  // Whether they can say that a flow is over.
  bool closes_flows() const { return closes_flows_; }
  uint64_t budget_ticks() const { return budget_ticks_; }
  const std::vector<uint64_t>& hot_pages() const { return hot_pages_; }

 private:
  const Engine& engine_;
  std::string name_;
  Layout layout_;
  uint64_t budget_ticks_;
  Grants grants_;
  bool emits_ = false;
  bool closes_flows_ = false;
  std::vector<uint64_t> hot_pages_;  // offsets that every first message touches
  wasmtime_module_t* module_ = nullptr;
  wasmtime_instance_pre_t* instance_pre_ = nullptr;
};

}  // namespace edgeos
