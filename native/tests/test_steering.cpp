// Steering programs, run by small interpreters of both kinds of BPF over frames of every shape, against the rule in plain words.
#include "../ports/steering.hpp"

#include <cstring>
#include <optional>
#include <random>

#include "check.hpp"

using namespace edgeos;
using namespace edgeos::check;

namespace {

using Bytes = std::vector<uint8_t>;

std::optional<uint32_t> load(const Bytes& frame, int64_t offset, uint32_t size) {
  if (offset < 0 || offset + size > static_cast<int64_t>(frame.size())) return std::nullopt;
  uint32_t value = 0;
  for (uint32_t i = 0; i < size; i++) value = value << 8 | frame[static_cast<size_t>(offset) + i];
  return value;
}

// As the kernel: a load beyond the frame ends the program with 0.
uint32_t run(const std::vector<sock_filter>& code, const Bytes& frame) {
  uint32_t a = 0, x = 0;
  for (size_t at = 0; at < code.size(); at++) {
    const sock_filter& in = code[at];
    const auto loaded = load(frame, int64_t{static_cast<int32_t>(in.k)} - SKF_LL_OFF, (in.code & BPF_H) != 0 ? 2 : 4);
    switch (in.code) {
      case BPF_LD | BPF_ABS | BPF_W:
      case BPF_LD | BPF_ABS | BPF_H:
        if (!loaded) return 0;
        a = *loaded;
        break;
      case BPF_MISC | BPF_TAX: x = a; break;
      case BPF_ALU | BPF_XOR | BPF_X: a ^= x; break;
      case BPF_ALU | BPF_MUL | BPF_K: a *= in.k; break;
      case BPF_ALU | BPF_RSH | BPF_K: a >>= in.k; break;
      case BPF_ALU | BPF_MOD | BPF_K: a %= in.k; break;
      case BPF_JMP | BPF_JA: at += in.k; break;
      case BPF_JMP | BPF_JEQ | BPF_K: at += a == in.k ? in.jt : in.jf; break;
      case BPF_RET | BPF_A: return a;
      default: fail(__FILE__, __LINE__, "an instruction that is not expected"); return UINT32_MAX;
    }
  }
  fail(__FILE__, __LINE__, "the program ran over its end");
  return UINT32_MAX;
}

uint32_t run(const std::vector<bpf_insn>& code, const Bytes& frame) {
  uint64_t r[11] = {};
  for (int64_t at = 0; at >= 0 && at < static_cast<int64_t>(code.size()); at++) {
    const bpf_insn& in = code[static_cast<size_t>(at)];
    const auto k = static_cast<uint32_t>(in.imm);
    const auto to32 = [&](uint64_t value) { r[in.dst_reg] = static_cast<uint32_t>(value); };
    const auto loaded = load(frame, int64_t{in.imm} - SKF_LL_OFF, (in.code & BPF_H) != 0 ? 2 : 4);
    switch (in.code) {
      case BPF_LD | BPF_ABS | BPF_W:
      case BPF_LD | BPF_ABS | BPF_H:
        if (!loaded) return 0;
        r[0] = *loaded;
        break;
      case BPF_ALU64 | BPF_MOV | BPF_X: r[in.dst_reg] = r[in.src_reg]; break;
      case BPF_ALU64 | BPF_MOV | BPF_K: r[in.dst_reg] = k; break;
      case BPF_ALU | BPF_MOV | BPF_X: to32(r[in.src_reg]); break;
      case BPF_ALU | BPF_XOR | BPF_X: to32(r[in.dst_reg] ^ r[in.src_reg]); break;
      case BPF_ALU | BPF_MUL | BPF_K: to32(r[in.dst_reg] * k); break;
      case BPF_ALU | BPF_RSH | BPF_K: to32(r[in.dst_reg] >> k); break;
      case BPF_ALU | BPF_MOD | BPF_K: to32(r[in.dst_reg] % k); break;
      case BPF_JMP | BPF_JA: at += in.off; break;
      case BPF_JMP32 | BPF_JEQ | BPF_K: at += static_cast<uint32_t>(r[in.dst_reg]) == k ? in.off : 0; break;
      case BPF_JMP | BPF_EXIT: return static_cast<uint32_t>(r[0]);
      default: fail(__FILE__, __LINE__, "an instruction that is not expected"); return UINT32_MAX;
    }
  }
  fail(__FILE__, __LINE__, "the program ran over its end");
  return UINT32_MAX;
}

// What `steer` leaves, as an XDP program of its own: pointers into the packet are its offsets above kPacket.
std::vector<bpf_insn> xdp_program(bool by_destination, uint32_t workers) {
  Assembler a;
  a.move(kContext, R1);
  steer(a, by_destination, workers);
  a.move(R0, R2);
  a.leave();
  return a.finish();
}

uint32_t run_xdp(const std::vector<bpf_insn>& code, const Bytes& frame) {
  constexpr uint64_t kPacket = 1 << 20;
  uint64_t r[11] = {};
  for (int64_t at = 0; at >= 0 && at < static_cast<int64_t>(code.size()); at++) {
    const bpf_insn& in = code[static_cast<size_t>(at)];
    const auto k = static_cast<uint32_t>(in.imm);
    uint64_t &to = r[in.dst_reg], from = r[in.src_reg];
    const auto to32 = [&](uint64_t value) { to = static_cast<uint32_t>(value); };
    const auto jump_if = [&](bool holds) { at += holds ? in.off : 0; };
    switch (in.code) {
      case BPF_LDX | BPF_MEM | BPF_W:
      case BPF_LDX | BPF_MEM | BPF_H:
        if (in.src_reg == kContext) {
          to = kPacket + (in.off == offsetof(xdp_md, data_end) ? frame.size() : 0);
        } else {
          const uint32_t size = BPF_SIZE(in.code) == BPF_H ? 2 : 4;
          const auto loaded = load(frame, static_cast<int64_t>(from - kPacket) + in.off, size);
          CHECK(loaded.has_value());  // the kernel would not have loaded the program
          to32(size == 2 ? __builtin_bswap16(static_cast<uint16_t>(loaded.value_or(0))) : __builtin_bswap32(loaded.value_or(0)));
        }
        break;
      case BPF_ALU64 | BPF_MOV | BPF_X: to = from; break;
      case BPF_ALU64 | BPF_MOV | BPF_K: to = k; break;
      case BPF_ALU64 | BPF_ADD | BPF_K: to += k; break;
      case BPF_ALU | BPF_END | BPF_TO_BE:
        to32(k == 16 ? __builtin_bswap16(static_cast<uint16_t>(to)) : __builtin_bswap32(static_cast<uint32_t>(to)));
        break;
      case BPF_ALU | BPF_XOR | BPF_X: to32(to ^ from); break;
      case BPF_ALU | BPF_MUL | BPF_K: to32(to * k); break;
      case BPF_ALU | BPF_RSH | BPF_K: to32(static_cast<uint32_t>(to) >> k); break;
      case BPF_ALU | BPF_MOD | BPF_K: to32(static_cast<uint32_t>(to) % k); break;
      case BPF_JMP | BPF_JA: at += in.off; break;
      case BPF_JMP | BPF_JEQ | BPF_K: jump_if(to == k); break;
      case BPF_JMP | BPF_JNE | BPF_K: jump_if(to != k); break;
      case BPF_JMP | BPF_JGT | BPF_X: jump_if(to > from); break;
      case BPF_JMP | BPF_EXIT: return static_cast<uint32_t>(r[0]);
      default: fail(__FILE__, __LINE__, "an instruction that is not expected"); return UINT32_MAX;
    }
  }
  fail(__FILE__, __LINE__, "the program ran over its end");
  return UINT32_MAX;
}

void put(Bytes& to, std::initializer_list<uint8_t> bytes) { to.insert(to.end(), bytes); }
void put(Bytes& to, const Bytes& bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

enum class Network { four, six, other };

struct Ends {
  Bytes source, destination;  // addresses of the network layer, or of Ethernet
};

Bytes frame_of(Network network, uint32_t tags, const Ends& ends) {
  Bytes f;
  const Ends ethernet = network == Network::other ? ends : Ends{Bytes(6, 2), Bytes(6, 4)};
  put(f, ethernet.destination);
  put(f, ethernet.source);
  for (uint32_t i = 0; i < tags; i++) put(f, {uint8_t(i == 0 && tags == 2 ? 0x88 : 0x81), uint8_t(i == 0 && tags == 2 ? 0xa8 : 0), 0x40, 7});
  if (network == Network::four) {
    put(f, {0x08, 0x00, 0x45});
    put(f, Bytes(11, 0));
    put(f, ends.source);
    put(f, ends.destination);
  } else if (network == Network::six) {
    put(f, {0x86, 0xdd, 0x60});
    put(f, Bytes(7, 0));
    put(f, ends.source);
    put(f, ends.destination);
  } else {
    put(f, {0x08, 0x06});
    put(f, Bytes(28, 9));
  }
  return f;
}

// The rule in plain words: the address folded to 32 bits (of Ethernet its last four bytes), times the golden ratio, the upper half.
uint32_t expected(const Bytes& address, uint32_t workers) {
  uint32_t folded = 0;
  for (size_t i = address.size() % 4; i < address.size(); i += 4)
    folded ^= uint32_t{address[i]} << 24 | uint32_t{address[i + 1]} << 16 | uint32_t{address[i + 2]} << 8 | address[i + 3];
  return (folded * 0x9e3779b1u >> 16) % workers;
}

}  // namespace

TEST(all_programs_choose_by_the_clients_address_alone) {
  std::mt19937 random(7);
  const auto some = [&](size_t size) {
    Bytes bytes(size);
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
    return bytes;
  };
  for (const uint32_t workers : {2u, 3u, 7u, 64u}) {
    for (const bool by_destination : {false, true}) {
      const auto classic = steering_program(by_destination, workers);
      const auto extended = to_extended(classic), xdp = xdp_program(by_destination, workers);
      for (const Network network : {Network::four, Network::six, Network::other}) {
        const size_t size = network == Network::four ? 4 : network == Network::six ? 16 : 6;
        for (uint32_t i = 0; i < 300; i++) {
          const Ends ends{some(size), some(size)};
          const Bytes frame = frame_of(network, i % 3, ends);
          const uint32_t wanted = expected(by_destination ? ends.destination : ends.source, workers);
          CHECK_EQ(run(classic, frame), wanted);
          CHECK_EQ(run(extended, frame), wanted);
          CHECK_EQ(run_xdp(xdp, frame), wanted);
        }
      }
    }
  }
}

TEST(frames_cut_short_or_wild_lead_to_a_worker_that_is_there) {
  std::mt19937 random(8);
  const auto classic = steering_program(true, 5);
  const auto extended = to_extended(classic), xdp = xdp_program(true, 5);
  for (uint32_t i = 0; i < 5000; i++) {
    Bytes frame(random() % 80);
    for (uint8_t& b : frame) b = random() % 4 == 0 ? 0x81 : static_cast<uint8_t>(random() % 9);
    const uint32_t worker = run(classic, frame);
    CHECK(worker < 5);
    CHECK_EQ(run(extended, frame), worker);
    CHECK_EQ(run_xdp(xdp, frame), worker);
  }
}

TEST(programs_are_within_the_kernels_bounds) {
  const auto classic = steering_program(false, 64);
  CHECK(classic.size() <= BPF_MAXINSNS);
  for (size_t i = 0; i < classic.size(); i++)
    if (classic[i].code == (BPF_JMP | BPF_JEQ | BPF_K)) CHECK(i + 1 + std::max(classic[i].jt, classic[i].jf) < classic.size());
}
