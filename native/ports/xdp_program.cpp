#include "xdp_program.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <stdexcept>

#include "bpf_assembler.hpp"
#include "steering.hpp"

namespace edgeos {
namespace {

constexpr uint32_t kExtensionsMax = 4;
constexpr uint32_t kVlanTagsMax = 2;
constexpr int32_t kRedirectMap = 51;  // BPF_FUNC_redirect_map

// What the parser finds out, on the stack; all 0 at first. Addresses are words as they lie in the packet.
enum : int16_t { kVlan = -4, kEthertype = -8, kVersion = -12, kProtocol = -16, kSourcePort = -20, kDestinationPort = -24,
                 kHasPorts = -28, kSource = -48, kDestination = -64, kStackEnd = -64 };

using Label = Assembler::Label;

struct Labels {
  Label terms, transport, take, pass;
};

void copy_address(Assembler& a, int16_t from, int16_t to, int words) {
  for (int i = 0; i < words; i++) {
    a.load32(R2, kAt, static_cast<int16_t>(from + 4 * i));
    a.store32(static_cast<int16_t>(to + 4 * i), R2);
  }
}

// Leaves the Ethernet type behind the tags in R3 and kAt behind it.
void parse_ethernet(Assembler& a, const Labels& to) {
  a.go_unless_bytes(kData, 14, to.pass);
  a.load_big16(R3, kData, 12);
  a.move(kAt, kData);
  a.add(kAt, 14);
  const Label untagged = a.label();
  for (uint32_t tag = 0; tag < kVlanTagsMax; tag++) {
    const Label tagged = a.label();
    a.go_if(BPF_JEQ, R3, 0x8100, tagged);
    a.go_if(BPF_JNE, R3, 0x88a8, untagged);
    a.place(tagged);
    a.go_unless_bytes(kAt, 4, untagged);
    if (tag == 0) {
      a.load_big16(R4, kAt, 0);
      a.mask(R4, 0xfff);
      a.add(R4, 1);
      a.store32(kVlan, R4);
    }
    a.load_big16(R3, kAt, 2);
    a.add(kAt, 4);
  }
  a.place(untagged);
  a.store32(kEthertype, R3);
}

void parse_ipv4(Assembler& a, const Labels& to) {
  a.go_unless_bytes(kAt, 20, to.terms);
  a.load8(R4, kAt, 0);
  a.move(R5, R4);
  a.shift_right(R5, 4);
  a.go_if(BPF_JNE, R5, 4, to.terms);
  a.mask(R4, 15);
  a.go_if(BPF_JLT, R4, 5, to.terms);
  a.shift_left(R4, 2);
  a.move(R5, kAt);
  a.add_register(R5, R4);
  a.go_if_past_end(R5, to.terms);
  a.store32_constant(kVersion, 4);
  a.load8(R3, kAt, 9);
  a.store32(kProtocol, R3);
  for (const int16_t slot : {kSource, kDestination})
    a.store32_constant(static_cast<int16_t>(slot + 8), static_cast<int32_t>(htonl(0xffff)));
  copy_address(a, 12, kSource + 12, 1);
  copy_address(a, 16, kDestination + 12, 1);
  a.load_big16(R4, kAt, 6);
  a.mask(R4, 0x1fff);
  a.go_if(BPF_JNE, R4, 0, to.terms);
  a.move(kAt, R5);
  a.go(to.transport);
}

// Passes over one extension header, whose type is in R3; goes to the transport layer when it is none.
void parse_extension(Assembler& a, const Labels& to) {
  const Label known = a.label(), fragment = a.label(), authentication = a.label(), sized = a.label();
  for (const int32_t type : {0, 43, 60}) a.go_if(BPF_JEQ, R3, type, known);
  a.go_if(BPF_JEQ, R3, 44, fragment);
  a.go_if(BPF_JEQ, R3, 51, authentication);
  a.go(to.transport);

  a.place(known);
  a.go_unless_bytes(kAt, 8, to.terms);
  a.set(R0, 0);
  a.load8(R4, kAt, 1);
  a.add(R4, 1);
  a.shift_left(R4, 3);
  a.go(sized);

  a.place(authentication);
  a.go_unless_bytes(kAt, 8, to.terms);
  a.set(R0, 0);
  a.load8(R4, kAt, 1);
  a.add(R4, 2);
  a.shift_left(R4, 2);
  a.go(sized);

  a.place(fragment);
  a.go_unless_bytes(kAt, 8, to.terms);
  a.load_big16(R0, kAt, 2);
  a.mask(R0, 0xfff8);  // where in the datagram: not 0 for later fragments
  a.set(R4, 8);

  a.place(sized);
  a.move(R5, kAt);
  a.add_register(R5, R4);
  a.go_if_past_end(R5, to.terms);
  a.load8(R3, kAt, 0);
  a.store32(kProtocol, R3);
  a.move(kAt, R5);
  a.go_if(BPF_JNE, R0, 0, to.terms);
}

void parse_ipv6(Assembler& a, const Labels& to) {
  a.go_unless_bytes(kAt, 40, to.terms);
  a.load8(R4, kAt, 0);
  a.shift_right(R4, 4);
  a.go_if(BPF_JNE, R4, 6, to.terms);
  a.store32_constant(kVersion, 6);
  copy_address(a, 8, kSource, 4);
  copy_address(a, 24, kDestination, 4);
  a.load8(R3, kAt, 6);
  a.store32(kProtocol, R3);
  a.add(kAt, 40);
  for (uint32_t i = 0; i < kExtensionsMax; i++) parse_extension(a, to);
  a.go(to.transport);
}

// The protocol is in R3.
void parse_transport(Assembler& a, const Labels& to) {
  const Label ported = a.label();
  for (const int32_t protocol : {6, 17, 132, 136}) a.go_if(BPF_JEQ, R3, protocol, ported);
  a.go(to.terms);
  a.place(ported);
  a.go_unless_bytes(kAt, 4, to.terms);
  a.load_big16(R4, kAt, 0);
  a.store32(kSourcePort, R4);
  a.load_big16(R4, kAt, 2);
  a.store32(kDestinationPort, R4);
  a.store32_constant(kHasPorts, 1);
}

void parse(Assembler& a, const Labels& to) {
  for (int16_t slot = kStackEnd; slot < 0; slot = static_cast<int16_t>(slot + 4)) a.store32_constant(slot, 0);
  a.load32(kData, R1, offsetof(xdp_md, data));
  a.load32(kEnd, R1, offsetof(xdp_md, data_end));
  const Label ipv4 = a.label(), ipv6 = a.label();
  parse_ethernet(a, to);
  a.go_if(BPF_JEQ, R3, 0x0800, ipv4);
  a.go_if(BPF_JEQ, R3, 0x86dd, ipv6);
  a.go(to.terms);
  a.place(ipv4);
  parse_ipv4(a, to);
  a.place(ipv6);
  parse_ipv6(a, to);
  a.place(to.transport);
  parse_transport(a, to);
}

void require(Assembler& a, int16_t slot, uint32_t value, Label otherwise) {
  a.load32(R2, R10, slot);
  a.go_if32(BPF_JNE, R2, value, otherwise);
}

void require_prefix(Assembler& a, const Prefix& prefix, int16_t slot, Label otherwise) {
  for (unsigned word = 0; word < 4 && word * 32 < prefix.bits; word++) {
    const unsigned bits = std::min(32u, prefix.bits - word * 32);
    const uint32_t mask = htonl(bits == 32 ? 0xffffffffu : ~(0xffffffffu >> bits));
    uint32_t wanted;
    std::memcpy(&wanted, prefix.address.data() + word * 4, sizeof wanted);
    a.load32(R2, R10, static_cast<int16_t>(slot + static_cast<int16_t>(word * 4)));
    if (bits < 32) a.mask32(R2, mask);
    a.go_if32(BPF_JNE, R2, wanted & mask, otherwise);
  }
}

void require_port(Assembler& a, PortRange range, int16_t slot, Label otherwise) {
  a.load32(R2, R10, slot);
  a.go_if(BPF_JLT, R2, range.low, otherwise);
  a.go_if(BPF_JGT, R2, range.high, otherwise);
}

// Goes on behind itself when the term holds.
void require_term(Assembler& a, const Rule& term, Label otherwise) {
  const bool prefixed = term.source || term.destination, ported = term.source_ports || term.destination_ports || term.any_port;
  const bool needs_ip = term.ip.value_or(false) || term.protocol || prefixed;
  if (term.ip && !*term.ip) require(a, kVersion, 0, otherwise);
  if (term.ip_version != 0) {
    require(a, kVersion, term.ip_version, otherwise);
  } else if (needs_ip) {
    a.load32(R2, R10, kVersion);
    a.go_if32(BPF_JEQ, R2, 0, otherwise);
  }
  if (term.ethertype) require(a, kEthertype, *term.ethertype, otherwise);
  if (term.protocol) require(a, kProtocol, *term.protocol, otherwise);
  if (term.vlan) require(a, kVlan, *term.vlan + 1u, otherwise);
  if (term.source) require_prefix(a, *term.source, kSource, otherwise);
  if (term.destination) require_prefix(a, *term.destination, kDestination, otherwise);
  if (ported) require(a, kHasPorts, 1, otherwise);
  if (term.source_ports) require_port(a, *term.source_ports, kSourcePort, otherwise);
  if (term.destination_ports) require_port(a, *term.destination_ports, kDestinationPort, otherwise);
  if (term.any_port) {
    const Label other_side = a.label(), held = a.label();
    require_port(a, *term.any_port, kSourcePort, other_side);
    a.go(held);
    a.place(other_side);
    require_port(a, *term.any_port, kDestinationPort, otherwise);
    a.place(held);
  }
}

void answer(Assembler& a, int32_t verdict) {
  a.set(R0, verdict);
  a.leave();
}

// Goes on behind itself with packets that meet a term, with all when there are none. Others go to `pass`, which it places.
// The kernel loads no program with instructions that cannot be reached: `is_led_to` says whether something else leads there.
void take(Assembler& a, const std::vector<Rule>& terms, Label pass, bool is_led_to = false) {
  if (terms.size() > kTakeTermsMax) throw std::runtime_error("at most " + std::to_string(kTakeTermsMax) + " terms to take by");
  if (terms.empty() && !is_led_to) return;
  const Labels to{a.label(), a.label(), a.label(), pass};
  if (terms.empty()) {
    a.go(to.take);
  } else {
    parse(a, to);
    a.place(to.terms);
  }
  for (const Rule& term : terms) {
    const Label next = a.label();
    require_term(a, term, next);
    a.go(to.take);
    a.place(next);
  }
  a.place(pass);
  answer(a, XDP_PASS);
  a.place(to.take);
}

// To what the map has at the number in R2; `missing` is what becomes of a packet when it has nothing there.
void redirect(Assembler& a, int map, int32_t missing) {
  a.emit(BPF_LD | BPF_IMM | BPF_DW, R1, BPF_PSEUDO_MAP_FD, 0, map);
  a.emit(0, 0, 0, 0, 0);  // the upper half
  a.set(R3, missing);
  a.emit(BPF_JMP | BPF_CALL, 0, 0, 0, kRedirectMap);
  a.leave();
}

}  // namespace

std::vector<bpf_insn> make_xdp_program(const std::vector<Rule>& terms, int map) {
  Assembler a;
  a.move(kContext, R1);
  take(a, terms, a.label());
  if (map < 0) {
    answer(a, XDP_REDIRECT);
  } else {
    a.load32(R2, kContext, offsetof(xdp_md, rx_queue_index));
    redirect(a, map, XDP_PASS);
  }
  return a.finish();
}

std::vector<bpf_insn> make_spreading_program(const std::vector<Rule>& terms, const XdpSpread& spread) {
  Assembler a;
  const Label pass = a.label();
  a.move(kContext, R1);
  if (spread.queue >= 0) {
    a.load32(R2, kContext, offsetof(xdp_md, rx_queue_index));
    a.go_if(BPF_JNE, R2, spread.queue, pass);
  }
  take(a, terms, pass, spread.queue >= 0);
  steer(a, spread.by_destination, spread.workers);
  if (spread.map < 0) {
    a.move(R0, R2);
    a.add(R0, XDP_REDIRECT);
    a.leave();
  } else {
    redirect(a, spread.map, XDP_DROP);
  }
  return a.finish();
}

}  // namespace edgeos
