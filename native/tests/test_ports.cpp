// Capture files as they must be read, broken ones included, and the memory port.
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include "../kernel/clock.hpp"
#include "../ports/memory_port.hpp"
#include "../ports/pcap_port.hpp"
#include "check.hpp"

using namespace edgeos;

namespace {

using Bytes = std::vector<uint8_t>;

class Folder {
 public:
  Folder() { CHECK(mkdtemp(path_) != nullptr); }
  ~Folder() {
    const std::string command = std::string("rm -r ") + path_;
    CHECK_EQ(std::system(command.c_str()), 0);
  }
  std::string file(const std::string& name) const { return std::string(path_) + "/" + name; }
  std::string store(const std::string& name, const Bytes& bytes) const {
    unlink(file(name).c_str());  // a file cut to nothing and written again would be flushed to disk each time
    const char* data = reinterpret_cast<const char*>(bytes.data());
    std::ofstream(file(name), std::ios::binary).write(data, static_cast<long>(bytes.size()));
    return file(name);
  }
  Bytes load(const std::string& name) const {
    std::ifstream in(file(name), std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(in), {});
  }

 private:
  char path_[32] = "/tmp/edgeos_ports_XXXXXX";
};

// Builds files in either byte order.
struct Builder {
  bool big = false;
  Bytes bytes;

  Builder& number(uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) bytes.push_back(static_cast<uint8_t>(value >> 8 * (big ? size - 1 - i : i)));
    return *this;
  }
  Builder& u16(uint64_t value) { return number(value, 2); }
  Builder& u32(uint64_t value) { return number(value, 4); }
  Builder& raw(const Bytes& more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
    return *this;
  }
  Builder& block(uint32_t type, const Bytes& body) {
    const uint64_t length = 12 + (body.size() + 3) / 4 * 4;
    u32(type).u32(length).raw(body).raw(Bytes((4 - body.size() % 4) % 4)).u32(length);
    return *this;
  }
  Builder part() const { return {big, {}}; }
  Builder& pcap_header(uint32_t magic, uint32_t link = 1) {
    return u32(magic).u16(2).u16(4).u32(0).u32(0).u32(65535).u32(link);
  }
  Builder& record(uint32_t seconds, uint32_t fraction, const Bytes& packet) {
    return u32(seconds).u32(fraction).u32(packet.size()).u32(packet.size()).raw(packet);
  }
  Builder& section() { return block(0x0a0d0d0a, part().u32(0x1a2b3c4d).u16(1).u16(0).u32(~0u).u32(~0u).bytes); }
  Builder& interface(uint16_t link, const Bytes& options = {}) {
    return block(1, part().u16(link).u16(0).u32(0).raw(options).bytes);
  }
  Builder& packet(uint32_t interface, uint64_t ticks, const Bytes& packet) {
    Builder body = part().u32(interface).u32(ticks >> 32).u32(ticks);
    return block(6, body.u32(packet.size()).u32(packet.size()).raw(packet).bytes);
  }
};

struct Got {
  std::vector<MemoryPacket> packets;
  std::string problem;
};

Got read_all(PcapPort& port, uint32_t max = 3) {
  Got got;
  std::vector<Packet> out(max);
  while (const uint32_t count = port.receive(out.data(), max))
    for (uint32_t i = 0; i < count; i++)
      got.packets.push_back({{out[i].data, out[i].data + out[i].len}, out[i].time_ns});
  CHECK(port.exhausted());
  CHECK_EQ(port.counters().received, got.packets.size());
  got.problem = port.problem();
  return got;
}

Got read_file(const std::string& path) {
  PcapPort port("in", path, "");
  return read_all(port);
}

Bytes pattern(size_t len, uint8_t seed) {
  Bytes bytes(len);
  for (size_t i = 0; i < len; i++) bytes[i] = static_cast<uint8_t>(i * 7 + seed);
  return bytes;
}

template <typename Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return true;
  std::printf("\"%s\" does not contain \"%s\"\n", text.c_str(), part.c_str());
  return false;
}

}  // namespace

TEST(what_is_written_is_read_back) {
  const Folder folder;
  for (const char* name : {"out.pcap", "out.pcapng"}) {
    std::vector<MemoryPacket> sent;
    {
      PcapPort port("out", "", folder.file(name));
      CHECK(port.exhausted() && port.lossless() && port.wait_fd() == -1);
      for (const size_t len : {0, 1, 60, 1514, 65535, 262144, 262144, 262144, 3}) {
        sent.push_back({pattern(len, 5), 1'700'000'000'123'456'789 + len});
        CHECK(port.send(sent.back().bytes.data(), static_cast<uint32_t>(len), sent.back().time_ns));
        CHECK_EQ(port.counters().sent + port.queued(), sent.size());
      }
      CHECK(!port.send(pattern(262145, 0).data(), 262145, 0));
      port.flush();
      CHECK_EQ(port.queued(), 0u);
      CHECK_EQ(port.counters().sent, sent.size());
      CHECK(port.send(pattern(9, 1).data(), 9, 77));
      sent.push_back({pattern(9, 1), 77});  // written when the port closes
    }
    const Got got = read_file(folder.file(name));
    CHECK_EQ(got.problem, "");
    CHECK_EQ(got.packets.size(), sent.size());
    for (size_t i = 0; i < sent.size(); i++)
      CHECK(got.packets.at(i).bytes == sent[i].bytes && got.packets[i].time_ns == sent[i].time_ns);
  }
}

TEST(pcap_of_both_byte_orders_and_resolutions) {
  const Folder folder;
  for (const bool big : {false, true}) {
    for (const bool nano : {false, true}) {
      Builder file{big, {}};
      file.pcap_header(nano ? 0xa1b23c4d : 0xa1b2c3d4).record(9, 5, pattern(20, 1)).record(10, 6, {});
      const Got got = read_file(folder.store("in.pcap", file.bytes));
      CHECK_EQ(got.problem, "");
      CHECK_EQ(got.packets.size(), 2u);
      CHECK(got.packets.at(0).bytes == pattern(20, 1));
      CHECK_EQ(got.packets.at(0).time_ns, 9'000'000'000u + (nano ? 5 : 5000));
      CHECK(got.packets.at(1).bytes.empty());
    }
  }
}

TEST(pcapng_sections_interfaces_and_blocks) {
  const Folder folder;
  Builder file;
  for (const bool big : {false, true}) {
    file.big = big;
    const Bytes nanoseconds = file.part().u16(9).u16(1).raw({9, 0, 0, 0}).u16(0).u16(0).bytes;
    Builder binary_with_offset = file.part().u16(2).u16(3).raw({'a', 'b', 'c', 0});  // its name first
    binary_with_offset.u16(9).u16(1).raw({0x8a, 0, 0, 0}).u16(14).u16(8).number(100, 8);
    file.section().interface(1).interface(1, nanoseconds).interface(1, binary_with_offset.bytes);
    file.packet(0, 7, pattern(61, 1)).block(4, pattern(40, 0));
    file.packet(1, 8, pattern(62, 2)).packet(2, 2048, pattern(63, 3));
    file.block(3, file.part().u32(5).raw(pattern(5, 4)).bytes);
    file.block(2, file.part().u16(1).u16(0).u32(0).u32(9).u32(6).u32(6).raw(pattern(6, 5)).bytes);
    file.block(0xbad, Bytes(2 << 20));  // larger than the buffer
  }
  const Got got = read_file(folder.store("in.pcapng", file.bytes));
  CHECK_EQ(got.problem, "");
  CHECK_EQ(got.packets.size(), 10u);
  for (size_t i = 0; i < 10; i += 5) {
    CHECK(got.packets.at(i).bytes == pattern(61, 1) && got.packets[i].time_ns == 7000);
    CHECK(got.packets.at(i + 1).bytes == pattern(62, 2) && got.packets[i + 1].time_ns == 8);
    CHECK(got.packets.at(i + 2).bytes == pattern(63, 3) && got.packets[i + 2].time_ns == 102'000'000'000);
    CHECK(got.packets.at(i + 3).bytes == pattern(5, 4) && got.packets[i + 3].time_ns == 102'000'000'000);
    CHECK(got.packets.at(i + 4).bytes == pattern(6, 5) && got.packets[i + 4].time_ns == 9);
  }
}

TEST(truncation_anywhere_delivers_what_is_readable) {
  const Folder folder;
  Builder pcap, pcapng;
  pcap.pcap_header(0xa1b2c3d4);
  pcapng.section().interface(1);
  std::vector<size_t> pcap_ends, pcapng_ends;
  for (uint8_t i = 0; i < 3; i++) {
    pcap_ends.push_back(pcap.record(i, 0, pattern(10, i)).bytes.size());
    pcapng_ends.push_back(pcapng.packet(0, i, pattern(10, i)).bytes.size());
  }
  const auto check = [&](const Bytes& whole, size_t header, const std::vector<size_t>& ends) {
    for (size_t size = 0; size < whole.size(); size++) {
      const std::string path = folder.store("cut", Bytes(whole.begin(), whole.begin() + static_cast<long>(size)));
      if (size < header) {
        CHECK(contains(error_of([&] { PcapPort("in", path, ""); }), "cut: "));
        continue;
      }
      const Got got = read_file(path);
      size_t readable = 0;
      while (ends[readable] <= size) readable++;
      CHECK_EQ(got.packets.size(), readable);
      for (size_t i = 0; i < readable; i++) CHECK(got.packets.at(i).bytes == pattern(10, static_cast<uint8_t>(i)));
      const bool clean = size == header || size == header + 20 || (readable > 0 && ends[readable - 1] == size);
      if (!clean) CHECK(contains(got.problem, "cut: truncated after packet " + std::to_string(readable)));
    }
  };
  check(pcap.bytes, 24, pcap_ends);
  check(pcapng.bytes, 28, pcapng_ends);
}

TEST(corruption_is_reported_after_what_is_readable) {
  const Folder folder;
  const auto problem_of = [&](const Builder& file) {
    const Got got = read_file(folder.store("bad", file.bytes));
    CHECK_EQ(got.packets.size(), 1u);
    return got.problem;
  };
  Builder pcap;
  pcap.pcap_header(0xa1b2c3d4).record(1, 0, pattern(60, 0));
  CHECK(contains(problem_of(Builder(pcap).u32(1).u32(0).u32(262145).u32(262145)), "corrupt: a packet of 262145 bytes"));
  Builder pcapng;
  pcapng.section().interface(1).packet(0, 1, pattern(60, 0));
  CHECK(contains(problem_of(Builder(pcapng).packet(1, 0, {})), "unknown interface 1"));
  CHECK(contains(problem_of(Builder(pcapng).u32(6).u32(13)), "truncated"));
  CHECK(contains(problem_of(Builder(pcapng).u32(6).u32(13).u32(0)), "a block of 13 bytes"));
  CHECK(contains(problem_of(Builder(pcapng).u32(6).u32(0xfffffff0).u32(0)), "a block of 4294967280 bytes"));
  CHECK(contains(problem_of(Builder(pcapng).u32(5).u32(0xfffffff0).u32(0)), "truncated"));
  CHECK(contains(problem_of(Builder(pcapng).u32(6).u32(12).u32(12)), "short packet block"));
  CHECK(contains(problem_of(Builder(pcapng).u32(5).u32(12).u32(16)), "two lengths differ"));
  const Bytes no_data = pcapng.part().u32(0).u32(0).u32(0).u32(5).u32(5).bytes;
  CHECK(contains(problem_of(Builder(pcapng).block(6, no_data)), "a packet of 5"));
  CHECK(contains(problem_of(Builder(pcapng).interface(1, {9, 0, 200, 0})), "option"));
  CHECK(contains(problem_of(Builder(pcapng).interface(113)), "interface 1 has link type 113"));
  CHECK(contains(problem_of(Builder(pcapng).section().packet(0, 0, {})), "unknown interface 0"));
  CHECK(contains(problem_of(Builder(pcapng).block(0x0a0d0d0a, Bytes(16))), "byte-order"));
}

TEST(random_damage_never_gets_through_the_reader) {
  const Folder folder;
  Builder file;
  file.section().interface(1, {9, 0, 1, 0, 9, 0, 0, 0});
  for (uint8_t i = 0; i < 5; i++) file.packet(0, i, pattern(30, i)).block(3, pattern(20, i));
  std::mt19937 random(3);
  for (int round = 0; round < 3000; round++) {
    Bytes bytes = file.bytes;
    for (auto i = random() % 4 + 1; i > 0; i--) bytes[random() % bytes.size()] ^= static_cast<uint8_t>(random());
    const std::string path = folder.store("bad", bytes);
    error_of([&] { CHECK(read_file(path).packets.size() <= 10); });
  }
}

TEST(files_that_cannot_be_opened_say_why) {
  const Folder folder;
  const auto reading = [](const std::string& path) { return error_of([&] { PcapPort("p", path, ""); }); };
  const auto writing = [](const std::string& path) { return error_of([&] { PcapPort("p", "", path); }); };
  CHECK(contains(reading(folder.file("none")), "none: cannot open"));
  CHECK(contains(reading(folder.file("none")), "No such file"));
  CHECK(contains(reading(folder.file("")), "not a regular file"));
  CHECK(contains(reading(folder.store("empty", {})), "0 bytes"));
  CHECK(contains(reading(folder.store("text", pattern(100, 0))), "neither a pcap nor a pcapng"));
  CHECK(contains(reading(folder.store("raw", Builder().pcap_header(0xa1b2c3d4, 101).bytes)), "link type 101"));
  CHECK(contains(reading(folder.store("cooked", Builder().section().interface(113).bytes)), "link type 113"));
  CHECK_EQ(mkfifo(folder.file("pipe").c_str(), 0600), 0);
  CHECK(contains(reading(folder.file("pipe")), "not a regular file"));
  CHECK(contains(writing(folder.file("pipe")), "pipe: cannot open"));
  CHECK(contains(writing(folder.file("none/out.pcap")), "No such file"));
  CHECK(contains(writing("/dev/full"), "No space left"));
  const std::string path = folder.store("both", Builder().pcap_header(0xa1b2c3d4).bytes);
  CHECK(contains(error_of([&] { PcapPort("p", path, path); }), "the same port reads this file"));
  CHECK_EQ(folder.load("both").size(), 24u);
}

TEST(empty_captures_end_at_once) {
  const Folder folder;
  const Builder empty[] = {Builder().pcap_header(0xa1b2c3d4), Builder().section(), Builder().section().interface(1)};
  for (const Builder& file : empty) {
    const Got got = read_file(folder.store("in", file.bytes));
    CHECK(got.packets.empty() && got.problem.empty());
  }
}

TEST(a_full_disk_is_reported_and_counted) {
  const Folder folder;
  rlimit unlimited{}, small{};
  CHECK_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  small = {1000, unlimited.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  for (const char* name : {"out.pcap", "out.pcapng"}) {
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    PcapPort port("out", "", folder.file(name));
    for (int i = 0; i < 20; i++) CHECK(port.send(pattern(100, 0).data(), 100, 1));
    port.flush();
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    CHECK(port.counters().sent > 0 && port.counters().sent < 20);
    CHECK_EQ(port.counters().sent + port.counters().send_dropped, 20u);
    CHECK_EQ(port.counters().sent_bytes, port.counters().sent * 100);
    CHECK(!port.send(pattern(100, 0).data(), 100, 1));
    CHECK(contains(port.problem(), "cannot be written after packet " + std::to_string(port.counters().sent)));
    const Got got = read_file(folder.file(name));
    CHECK_EQ(got.packets.size(), port.counters().sent);
    CHECK_EQ(got.problem, "");
  }
}

TEST(a_long_file_is_read_in_pieces) {
  const Folder folder;
  {
    PcapPort port("out", "", folder.file("long.pcapng"));
    for (uint32_t i = 0; i < 20000; i++)
      CHECK(port.send(pattern(i % 1500, static_cast<uint8_t>(i)).data(), i % 1500, i));
  }
  PcapPort port("in", folder.file("long.pcapng"), folder.file("other.pcap"));
  const Got got = read_all(port, 256);
  CHECK_EQ(got.packets.size(), 20000u);
  for (uint32_t i = 0; i < got.packets.size(); i++)
    CHECK(got.packets[i].time_ns == i && got.packets[i].bytes == pattern(i % 1500, static_cast<uint8_t>(i)));
}

TEST(memory_port_passes_packets_both_ways) {
  MemoryPort port("mem", {.capacity = 2, .lossless = true});
  Packet out[4];
  const auto readable = [&] {
    pollfd waiting{port.wait_fd(), POLLIN, 0};
    return poll(&waiting, 1, 0) == 1;
  };
  CHECK(port.lossless() && !port.exhausted() && !readable());
  CHECK_EQ(port.receive(out, 4), 0u);
  CHECK(port.inject(pattern(60, 1).data(), 60, 11) && port.inject(pattern(61, 2).data(), 61, 12));
  CHECK(!port.inject(pattern(62, 3).data(), 62, 13));
  CHECK(readable());
  CHECK_EQ(port.receive(out, 1), 1u);
  CHECK(Bytes(out[0].data, out[0].data + out[0].len) == pattern(60, 1) && out[0].time_ns == 11);
  CHECK(readable());
  CHECK_EQ(port.receive(out, 4), 1u);
  CHECK(Bytes(out[0].data, out[0].data + out[0].len) == pattern(61, 2) && out[0].time_ns == 12);
  CHECK(!readable());
  CHECK_EQ(port.counters().received_bytes, 121u);
  CHECK(port.inject(nullptr, 0, 14) && readable());
  CHECK(port.receive(out, 4) == 1 && out[0].len == 0);

  CHECK(port.send(pattern(60, 1).data(), 60, 21) && port.send(nullptr, 0, 22));
  CHECK(!port.send(pattern(60, 1).data(), 60, 23));
  const std::vector<MemoryPacket> sent = port.take();
  CHECK(sent.size() == 2 && sent[0].bytes == pattern(60, 1) && sent[0].time_ns == 21 && sent[1].bytes.empty());
  CHECK(port.take().empty() && port.send(nullptr, 0, 24));
  CHECK_EQ(port.counters().sent, 3u);
}

TEST(memory_port_is_fed_from_another_thread) {
  MemoryPort port("mem", {.capacity = 16});
  constexpr uint32_t kCount = 50000;
  std::thread feeder([&] {
    for (uint32_t i = 0; i < kCount; i++)
      while (!port.inject(reinterpret_cast<const uint8_t*>(&i), sizeof i, i)) std::this_thread::yield();
  });
  Packet out[8];
  for (uint32_t next = 0; next < kCount;) {
    pollfd waiting{port.wait_fd(), POLLIN, 0};
    CHECK_EQ(poll(&waiting, 1, 5000), 1);
    const uint32_t count = port.receive(out, 8);
    for (uint32_t i = 0; i < count; i++, next++)
      CHECK(std::memcmp(out[i].data, &next, sizeof next) == 0 && out[i].time_ns == next);
  }
  feeder.join();
}

TEST(memory_port_loop_and_sink) {
  const std::vector<MemoryPacket> loop = {{pattern(60, 1), 1}, {pattern(61, 2), 2}, {pattern(62, 3), 3}};
  MemoryPort port("mem", {.loop = loop, .loop_limit = 100, .sink = true});
  Packet out[8];
  uint32_t seen = 0;
  while (const uint32_t count = port.receive(out, 8)) {
    for (uint32_t i = 0; i < count; i++, seen++) {
      CHECK(out[i].len == 60 + seen % 3 && out[i].time_ns == 1 + seen % 3 && out[i].data[0] == 1 + seen % 3);
      CHECK(port.send(out[i].data, out[i].len, 0));
    }
  }
  CHECK(seen == 100 && port.exhausted() && port.counters().sent == 100);
  CHECK(!port.inject(pattern(60, 1).data(), 60, 0));
  CHECK(port.send(pattern(2112, 0).data(), 2112, 0) && !port.send(pattern(2113, 0).data(), 2113, 0));
  CHECK(port.take().empty());
}

TEST(memory_port_paces_its_loop_and_times_what_arrives) {
  const std::vector<MemoryPacket> loop = {{pattern(60, 1), 0}};
  constexpr uint64_t kRate = 100'000, kUnpaced = 50, kPackets = 1000, kUntimed = 100;
  MemoryPort source("source", {.loop = loop, .loop_limit = kUnpaced + kPackets, .rate = kRate, .unpaced = kUnpaced});
  MemoryPort sink("sink", {.sink = true, .untimed = kUntimed});
  Packet out[8];
  for (uint64_t left = kUnpaced; left > 0;) {
    const uint32_t count = source.receive(out, 8);
    CHECK(count > 0 && count <= left && out[count - 1].time_ns == 0);
    left -= count;
  }
  uint64_t first = 0, last = 0;
  while (!source.exhausted()) {
    const uint32_t count = source.receive(out, 8);
    for (uint32_t i = 0; i < count; i++) {
      CHECK(out[i].time_ns > last && out[i].time_ns <= monotonic_ns());
      last = out[i].time_ns;
      if (first == 0) first = last;
      CHECK(sink.send(out[i].data, out[i].len, last));
    }
  }
  CHECK_EQ(last - first, (kPackets - 1) * (1'000'000'000 / kRate));  // evenly, however late the receiver was
  CHECK(monotonic_ns() >= last);
  CHECK_EQ(sink.latency().count(), kPackets - kUntimed);
  CHECK(sink.latency().quantile(0.5) <= sink.latency().max());
}
