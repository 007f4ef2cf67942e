// The Wasm engine of one worker: Wasmtime with the pooling allocator, sized for the FWPs of a node.
//
// Owner: the node. Threading: compile() and the epoch may be used from any thread; the rest from the worker's.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "wasmtime.hpp"

namespace edgeos {

struct EngineSettings {
  uint32_t fwps = 1000;               // instances that may exist at once, ready ones included
  uint64_t memory_max = 1 << 20;      // largest memory of any FWP, bytes, a multiple of 64 KiB
  bool compact = false;               // memories close together with explicit bounds checks, instead of 4 GiB apart
  bool copy_on_write = true;          // map the checkpoint's image instead of copying it
  // Bytes at the start of a memory that recycling clears, all of them, rather than giving them back: what is beyond what
  // guests touch becomes resident with the first recycling.
  uint64_t keep_resident = 24 << 10;

  // What native code depends on: code compiled under one key loads under the same key only.
  std::string code_key() const;
};

class Engine {
 public:
  // Throws std::runtime_error when the address space for the pool cannot be had; the library itself would abort.
  explicit Engine(const EngineSettings& settings);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Native code of a module, to be kept and given to FwpTemplate. Throws on an invalid module.
  std::vector<uint8_t> compile(std::span<const uint8_t> wasm) const;

  // One tick of the CPU budget of the running guest.
  void tick() { wt.wasmtime_engine_increment_epoch(engine_); }

  wasm_engine_t* handle() const { return engine_; }
  const EngineSettings& settings() const { return settings_; }

 private:
  EngineSettings settings_;
  wasm_engine_t* engine_ = nullptr;
};

}  // namespace edgeos
