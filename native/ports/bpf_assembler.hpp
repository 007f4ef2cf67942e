// Puts together XDP programs: instructions of BPF by name, jumps to labels that are placed later.
//
// Owner: the caller, any thread. Source: the kernel's Documentation/bpf/standardization, RFC 9669.
#pragma once

#include <linux/bpf.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace edgeos {

enum : uint8_t { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 };
// What XDP programs of ours keep: the context, the packet, its end, and where in it they are.
constexpr uint8_t kContext = R6, kData = R7, kEnd = R8, kAt = R9;

class Assembler {
 public:
  using Label = size_t;

  Label label() {
    places_.push_back(-1);
    return places_.size() - 1;
  }
  void place(Label label) { places_[label] = static_cast<ptrdiff_t>(code_.size()); }

  void emit(unsigned opcode, uint8_t dst, uint8_t src, int16_t offset, int32_t immediate) {
    bpf_insn instruction{};
    instruction.code = static_cast<uint8_t>(opcode);
    instruction.dst_reg = dst & 15;
    instruction.src_reg = src & 15;
    instruction.off = offset;
    instruction.imm = immediate;
    code_.push_back(instruction);
  }
  void move(uint8_t dst, uint8_t src) { emit(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0); }
  void set(uint8_t dst, int32_t value) { emit(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value); }
  void add(uint8_t dst, int32_t value) { emit(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, value); }
  void add_register(uint8_t dst, uint8_t src) { emit(BPF_ALU64 | BPF_ADD | BPF_X, dst, src, 0, 0); }
  void mask(uint8_t dst, int32_t value) { emit(BPF_ALU64 | BPF_AND | BPF_K, dst, 0, 0, value); }
  void mask32(uint8_t dst, uint32_t value) { emit(BPF_ALU | BPF_AND | BPF_K, dst, 0, 0, static_cast<int32_t>(value)); }
  void shift_left(uint8_t dst, int32_t bits) { emit(BPF_ALU64 | BPF_LSH | BPF_K, dst, 0, 0, bits); }
  void shift_right(uint8_t dst, int32_t bits) { emit(BPF_ALU64 | BPF_RSH | BPF_K, dst, 0, 0, bits); }
  void load8(uint8_t dst, uint8_t base, int16_t offset) { emit(BPF_LDX | BPF_MEM | BPF_B, dst, base, offset, 0); }
  void load32(uint8_t dst, uint8_t base, int16_t offset) { emit(BPF_LDX | BPF_MEM | BPF_W, dst, base, offset, 0); }
  void load_big16(uint8_t dst, uint8_t base, int16_t offset) {
    emit(BPF_LDX | BPF_MEM | BPF_H, dst, base, offset, 0);
    emit(BPF_ALU | BPF_END | BPF_TO_BE, dst, 0, 0, 16);
  }
  void to_big32(uint8_t dst) { emit(BPF_ALU | BPF_END | BPF_TO_BE, dst, 0, 0, 32); }
  void xor_register(uint8_t dst, uint8_t src) { emit(BPF_ALU | BPF_XOR | BPF_X, dst, src, 0, 0); }
  void multiply32(uint8_t dst, uint32_t value) { emit(BPF_ALU | BPF_MUL | BPF_K, dst, 0, 0, static_cast<int32_t>(value)); }
  void shift_right32(uint8_t dst, int32_t bits) { emit(BPF_ALU | BPF_RSH | BPF_K, dst, 0, 0, bits); }
  void modulo32(uint8_t dst, uint32_t value) { emit(BPF_ALU | BPF_MOD | BPF_K, dst, 0, 0, static_cast<int32_t>(value)); }
  void store32(int16_t slot, uint8_t src) { emit(BPF_STX | BPF_MEM | BPF_W, R10, src, slot, 0); }
  void store32_constant(int16_t slot, int32_t value) { emit(BPF_ST | BPF_MEM | BPF_W, R10, 0, slot, value); }

  void leave() { emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

  void go(Label to) { jump(BPF_JMP | BPF_JA, 0, 0, 0, to); }
  void go_if(unsigned condition, uint8_t dst, int32_t value, Label to) { jump(BPF_JMP | condition | BPF_K, dst, 0, value, to); }
  void go_if32(unsigned condition, uint8_t dst, uint32_t value, Label to) {
    jump(BPF_JMP32 | condition | BPF_K, dst, 0, static_cast<int32_t>(value), to);
  }
  // Goes there unless `bytes` bytes follow the pointer; the verifier then knows that they do.
  void go_unless_bytes(uint8_t pointer, int32_t bytes, Label to) {
    move(R2, pointer);
    add(R2, bytes);
    jump(BPF_JMP | BPF_JGT | BPF_X, R2, kEnd, 0, to);
  }
  void go_if_past_end(uint8_t pointer, Label to) { jump(BPF_JMP | BPF_JGT | BPF_X, pointer, kEnd, 0, to); }

  std::vector<bpf_insn> finish() {
    for (const auto& [at, to] : jumps_) code_[at].off = static_cast<int16_t>(places_[to] - static_cast<ptrdiff_t>(at) - 1);
    return std::move(code_);
  }

 private:
  void jump(unsigned opcode, uint8_t dst, uint8_t src, int32_t value, Label to) {
    jumps_.emplace_back(code_.size(), to);
    emit(opcode, dst, src, 0, value);
  }

  std::vector<bpf_insn> code_;
  std::vector<ptrdiff_t> places_;
  std::vector<std::pair<size_t, Label>> jumps_;
};

}  // namespace edgeos
