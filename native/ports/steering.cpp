#include "steering.hpp"

#include <linux/if_ether.h>

#include <cstddef>
#include <stdexcept>

namespace edgeos {
namespace {

constexpr uint32_t kGolden = 0x9e3779b1;
constexpr uint32_t kTagsMax = 2;
constexpr auto kLink = static_cast<uint32_t>(SKF_LL_OFF);  // where the Ethernet header begins
constexpr uint32_t kBlock = 19;                            // instructions for each number of tags

constexpr sock_filter load(uint16_t size, uint32_t offset) { return BPF_STMT(uint16_t(BPF_LD | BPF_ABS | size), offset); }
constexpr sock_filter equal(uint32_t value, uint8_t then, uint8_t otherwise) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise);
}
constexpr sock_filter jump(size_t from, size_t to) {
  return BPF_JUMP(BPF_JMP | BPF_JA, static_cast<uint32_t>(to - from - 1), 0, 0);
}

// The client's address behind so many tags, folded to a word; on to the next block when there is one more tag.
void add_block(std::vector<sock_filter>& code, uint32_t tags, bool by_destination) {
  constexpr size_t kEthernet = (kTagsMax + 1) * kBlock, kHash = kEthernet + 1;
  const uint32_t type = kLink + 12 + 4 * tags, network = type + 2;
  const uint32_t four = network + (by_destination ? 16 : 12), six = network + (by_destination ? 24 : 8);
  code.push_back(load(BPF_H, type));
  code.push_back(equal(ETH_P_IP, 0, 2));
  code.push_back(load(BPF_W, four));
  code.push_back(jump(code.size(), kHash));
  code.push_back(equal(ETH_P_IPV6, 0, 11));
  code.push_back(load(BPF_W, six));
  for (uint32_t word = 4; word < 16; word += 4) {
    code.push_back(BPF_STMT(BPF_MISC | BPF_TAX, 0));
    code.push_back(load(BPF_W, six + word));
    code.push_back(BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0));
  }
  code.push_back(jump(code.size(), kHash));
  code.push_back(equal(ETH_P_8021Q, tags < kTagsMax ? 2 : 1, 0));
  code.push_back(equal(ETH_P_8021AD, tags < kTagsMax ? 1 : 0, 0));
  code.push_back(jump(code.size(), kEthernet));
}

// Registers: A is r0, X is r7, and the packet stays in r6, where its loads look for it.
bpf_insn extended(uint8_t code, uint8_t to, uint8_t from, int32_t value) {
  bpf_insn instruction{};
  instruction.code = code;
  instruction.dst_reg = to & 0xf;
  instruction.src_reg = from & 0xf;
  instruction.imm = value;
  return instruction;
}

void translate(const sock_filter& in, std::vector<bpf_insn>& out) {
  const auto value = static_cast<int32_t>(in.k);
  switch (in.code) {
    case BPF_LD | BPF_ABS | BPF_W:
    case BPF_LD | BPF_ABS | BPF_H:
      return out.push_back(extended(static_cast<uint8_t>(in.code), 0, 0, value));
    case BPF_ALU | BPF_MUL | BPF_K:
    case BPF_ALU | BPF_RSH | BPF_K:
    case BPF_ALU | BPF_MOD | BPF_K:
      return out.push_back(extended(static_cast<uint8_t>(in.code), 0, 0, value));
    case BPF_ALU | BPF_XOR | BPF_X: return out.push_back(extended(BPF_ALU | BPF_XOR | BPF_X, 0, 7, 0));
    case BPF_MISC | BPF_TAX: return out.push_back(extended(BPF_ALU | BPF_MOV | BPF_X, 7, 0, 0));
    case BPF_RET | BPF_A: return out.push_back(extended(BPF_JMP | BPF_EXIT, 0, 0, 0));
    case BPF_JMP | BPF_JA: return out.push_back(extended(BPF_JMP | BPF_JA, 0, 0, 0));
    case BPF_JMP | BPF_JEQ | BPF_K:  // one jump where it holds, one where it does not
      out.push_back(extended(BPF_JMP32 | BPF_JEQ | BPF_K, 0, 0, value));
      return out.push_back(extended(BPF_JMP | BPF_JA, 0, 0, 0));
    default: throw std::logic_error("an instruction that steering programs do not have");
  }
}

// Leaves the Ethernet type behind up to kTagsMax tags in R3, and kAt behind it.
void pass_tags(Assembler& a, Assembler::Label cut_short) {
  const Assembler::Label untagged = a.label();
  a.go_unless_bytes(kData, ETH_HLEN, cut_short);
  a.load_big16(R3, kData, 12);
  a.move(kAt, kData);
  a.add(kAt, ETH_HLEN);
  for (uint32_t tag = 0; tag < kTagsMax; tag++) {
    const Assembler::Label tagged = a.label();
    a.go_if(BPF_JEQ, R3, ETH_P_8021Q, tagged);
    a.go_if(BPF_JNE, R3, ETH_P_8021AD, untagged);
    a.place(tagged);
    a.go_unless_bytes(kAt, 4, cut_short);
    a.load_big16(R3, kAt, 2);
    a.add(kAt, 4);
  }
  a.place(untagged);
}

// So many words of an address, folded to one in R4 as they lie in the packet.
void fold(Assembler& a, uint8_t base, int16_t offset, int16_t words, Assembler::Label cut_short) {
  a.go_unless_bytes(base, offset + 4 * words, cut_short);
  a.load32(R4, base, offset);
  for (int16_t word = 1; word < words; word++) {
    a.load32(R5, base, static_cast<int16_t>(offset + 4 * word));
    a.xor_register(R4, R5);
  }
}

}  // namespace

std::vector<sock_filter> steering_program(bool by_destination, uint32_t workers) {
  std::vector<sock_filter> code;
  for (uint32_t tags = 0; tags <= kTagsMax; tags++) add_block(code, tags, by_destination);
  code.push_back(load(BPF_W, kLink + (by_destination ? 2 : 8)));
  code.push_back(BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, kGolden));
  code.push_back(BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16));
  code.push_back(BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, workers));
  code.push_back(BPF_STMT(BPF_RET | BPF_A, 0));
  return code;
}

std::vector<bpf_insn> to_extended(const std::vector<sock_filter>& program) {
  std::vector<bpf_insn> out = {extended(BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0), extended(BPF_ALU64 | BPF_MOV | BPF_K, 7, 0, 0)};
  std::vector<size_t> starts;
  for (const sock_filter& in : program) {
    starts.push_back(out.size());
    translate(in, out);
  }
  for (size_t i = 0; i < program.size(); i++) {
    const auto aim = [&](size_t at, size_t target) { out[at].off = static_cast<int16_t>(starts[target] - at - 1); };
    if (program[i].code == (BPF_JMP | BPF_JA)) aim(starts[i], i + 1 + program[i].k);
    if (program[i].code != (BPF_JMP | BPF_JEQ | BPF_K)) continue;
    aim(starts[i], i + 1 + program[i].jt);
    aim(starts[i] + 1, i + 1 + program[i].jf);
  }
  return out;
}

void steer(Assembler& a, bool by_destination, uint32_t workers) {
  const Assembler::Label four = a.label(), six = a.label(), hash = a.label(), cut_short = a.label(), chosen = a.label();
  a.load32(kData, kContext, offsetof(xdp_md, data));
  a.load32(kEnd, kContext, offsetof(xdp_md, data_end));
  pass_tags(a, cut_short);
  a.go_if(BPF_JEQ, R3, ETH_P_IP, four);
  a.go_if(BPF_JEQ, R3, ETH_P_IPV6, six);
  fold(a, kData, by_destination ? 2 : 8, 1, cut_short);
  a.go(hash);
  a.place(four);
  fold(a, kAt, by_destination ? 16 : 12, 1, cut_short);
  a.go(hash);
  a.place(six);
  fold(a, kAt, by_destination ? 24 : 8, 4, cut_short);
  a.place(hash);
  a.to_big32(R4);
  a.multiply32(R4, kGolden);
  a.shift_right32(R4, 16);
  a.modulo32(R4, workers);
  a.move(R2, R4);
  a.go(chosen);
  a.place(cut_short);
  a.set(R2, 0);
  a.place(chosen);
}

}  // namespace edgeos
