#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "../ports/afpacket_port.hpp"
#include "../ports/afxdp_port.hpp"
#include "../ports/listener.hpp"
#include "../ports/memory_port.hpp"
#include "../ports/packet_socket.hpp"
#include "../ports/pcap_port.hpp"
#include "../ports/tap_port.hpp"
#include "../ports/xdp_pair_port.hpp"
#include "../ports/xdp_pairs.hpp"
#include "bindings.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgeos {
namespace {

using TimedBytes = std::pair<nb::bytes, uint64_t>;

std::vector<MemoryPacket> packets_from(const std::vector<TimedBytes>& packets) {
  std::vector<MemoryPacket> all;
  for (const auto& [bytes, time_ns] : packets) {
    const auto* data = static_cast<const uint8_t*>(bytes.data());
    all.push_back({{data, data + bytes.size()}, time_ns});
  }
  return all;
}

nb::tuple frames_to(const XdpFrameCounts& f) { return nb::make_tuple(f.taken, f.filled, f.held, f.free_to_send, f.sending); }

nb::bytes program_to(const std::vector<bpf_insn>& program) { return nb::bytes(program.data(), program.size() * sizeof(bpf_insn)); }

nb::list packets_to(const std::vector<MemoryPacket>& packets) {
  nb::list all;
  for (const MemoryPacket& p : packets) all.append(nb::make_tuple(nb::bytes(p.bytes.data(), p.bytes.size()), p.time_ns));
  return all;
}

}  // namespace

ListenerKind listener_kind(const std::string& kind) {
  if (kind == "tcp") return ListenerKind::tcp;
  if (kind == "udp") return ListenerKind::udp;
  if (kind == "unix") return ListenerKind::unix_stream;
  throw nb::value_error("a kind is tcp, udp or unix");
}

void bind_port(nb::module_& m) {
  nb::class_<Port>(m, "Port", "An open port: a capture file, a network device or memory. Nodes take it with add_port.")
      .def_prop_ro("name", &Port::name)
      .def_prop_ro("mode", &Port::mode);

  nb::class_<MemoryPort, Port>(m, "MemoryPort")
      .def("__init__",
           [](MemoryPort* self, std::string name, uint32_t capacity, bool lossless, const std::vector<TimedBytes>& loop,
              uint64_t loop_limit, bool sink, uint32_t burst, uint64_t rate, uint64_t unpaced,
              uint64_t untimed) {
             new (self) MemoryPort(std::move(name), {capacity, lossless, packets_from(loop), loop_limit, sink, burst, rate,
                                                     unpaced, untimed});
           },
           "name"_a, "capacity"_a = 4096, "lossless"_a = false, "loop"_a = std::vector<TimedBytes>{}, "loop_limit"_a = 0,
           "sink"_a = false, "burst"_a = UINT32_MAX, "rate"_a = 0, "unpaced"_a = 0,
           "untimed"_a = 0)
      .def("inject",
           [](MemoryPort& self, const nb::bytes& data, uint64_t time_ns) {
             return self.inject(static_cast<const uint8_t*>(data.data()), static_cast<uint32_t>(data.size()), time_ns);
           },
           "data"_a, "time_ns"_a = 0)
      .def("take", [](MemoryPort& self) { return packets_to(self.take()); })
      .def("latency_ns", [](const MemoryPort& self, double quantile) { return self.latency().quantile(quantile); },
           "quantile"_a, "Of the packets that a sink got from a loop with a rate, when the node has stopped.")
      .def_prop_ro("timed", [](const MemoryPort& self) { return self.latency().count(); });

  nb::class_<PcapPort, Port>(m, "PcapPort")
      .def(nb::init<std::string, const std::string&, const std::string&>(), "name"_a, "read"_a = "", "write"_a = "");
  nb::class_<TapPort, Port>(m, "TapPort")
      .def(nb::init<std::string, const std::string&, bool, int>(), "name"_a, "device"_a, "offload"_a = true, "fd"_a = -1);
  nb::class_<AfPacketPort, Port>(m, "AfPacketPort")
      .def(nb::init<std::string, const std::string&, const std::string&, int>(), "name"_a, "device"_a, "mode"_a = "", "fd"_a = -1);
  m.def("open_packet_group", &open_packet_group, "device"_a, nb::kw_only(), "sockets"_a, "by_destination"_a,
        "Descriptors of packet sockets for several processes; the caller closes them.");
  m.def("open_tap_queues", &open_tap_queues, "device"_a, nb::kw_only(), "queues"_a, "by_destination"_a,
        "Descriptors of a TAP device's queues for several processes; the caller closes them.");
  nb::class_<Listener, Port>(m, "Listener")
      .def_prop_ro("kind", [](const Listener& self) {
        return self.is_udp() ? "udp" : self.settings().kind == ListenerKind::tcp ? "tcp" : "unix";
      })
      .def_prop_ro("listen", &Listener::where)
      .def_prop_ro("max_connections", [](const Listener& self) { return self.settings().max_connections; })
      .def_prop_ro("port_number", &Listener::port_number);
  m.def("open_listener",
        [](std::string name, const std::string& kind, std::string address, uint16_t port, int backlog, uint32_t max_connections,
           uint32_t max_per_client, uint8_t client_prefix_v6, uint32_t accept_rate, uint64_t open_timeout_ns,
           uint64_t idle_timeout_ns, bool proxy_protocol, uint32_t mode, uint32_t output_limit, int fd) {
          return std::make_unique<Listener>(
              std::move(name), ListenerSettings{{listener_kind(kind), std::move(address), port, backlog, mode}, max_connections,
                                                max_per_client, client_prefix_v6, accept_rate, open_timeout_ns, idle_timeout_ns,
                                                proxy_protocol, output_limit, fd});
        },
        "name"_a, "kind"_a, "address"_a, "port"_a = 0, nb::kw_only(), "backlog"_a = 1024, "max_connections"_a = 10'000,
        "max_per_client"_a = 1000, "client_prefix_v6"_a = kClientPrefixV6, "accept_rate"_a = 0, "open_timeout_ns"_a = 0,
        "idle_timeout_ns"_a = 0, "proxy_protocol"_a = false, "mode"_a = 0660, "output_limit"_a = 256 * 1024, "fd"_a = -1);
  m.def("open_listening_group",
        [](const std::string& kind, std::string address, uint16_t port, uint32_t sockets, bool by_source, int backlog,
           uint32_t mode) {
          return open_listening_group({listener_kind(kind), std::move(address), port, backlog, mode}, sockets, by_source);
        },
        "kind"_a, "address"_a, "port"_a, nb::kw_only(), "sockets"_a, "by_source"_a = true, "backlog"_a = 1024, "mode"_a = 0660,
        "Descriptors of listening sockets for several processes; the caller closes them.");

  nb::class_<Umem>(m, "Umem", "Packet memory that the AF_XDP ports of a node share.")
      .def(nb::init<const std::vector<std::pair<std::string, int>>&>(), "devices"_a)
      .def_static("bytes_for",
                  [](const std::vector<std::pair<std::string, int>>& devices) { return Umem::size_for(devices).bytes(); },
                  "devices"_a)
      .def_prop_ro("frames", &Umem::frames)
      .def_prop_ro("free_frames", &Umem::free_frames)
      .def_prop_ro("frame_bytes", &Umem::frame_bytes);
  nb::class_<AfXdpPort, Port>(m, "AfXdpPort")
      .def(nb::init<std::string, const std::string&, std::shared_ptr<Umem>, int, const std::vector<Rule>&>(), "name"_a,
           "device"_a, "umem"_a, "queue"_a = AfXdpPort::kAllQueues, "take"_a = std::vector<Rule>{})
      .def("frames", [](const AfXdpPort& self) {
        nb::list all;
        for (const XdpFrameCounts& f : self.frames()) all.append(frames_to(f));
        return all;
      });
  nb::class_<XdpPairPort, Port>(m, "XdpPairPort", "An AF_XDP port as one of several workers has it.")
      .def(nb::init<std::string, const std::string&, int, bool>(), "name"_a, "device"_a, "space"_a, nb::kw_only(), "everything"_a)
      .def("frames", [](const XdpPairPort& self) { return frames_to(self.frames()); });
  m.def("open_xdp_pairs",
        [](const std::string& device, uint32_t workers, bool by_destination, int queue, const std::vector<Rule>& take) {
          XdpPairs pairs = open_xdp_pairs(device, workers, by_destination, queue, take);
          std::vector<int> spaces;
          for (Descriptor& space : pairs.spaces) spaces.push_back(space.release());
          return std::make_pair(pairs.link.release(), spaces);
        },
        "device"_a, nb::kw_only(), "workers"_a, "by_destination"_a, "queue"_a, "take"_a,
        "Descriptors that keep them: the program's hold on the device, and a network namespace for each worker.");
  m.def("xdp_program", [](const std::vector<Rule>& take) { return program_to(make_xdp_program(take, -1)); }, "take"_a);
  m.def("xdp_spreading_program",
        [](const std::vector<Rule>& take, uint32_t workers, bool by_destination, int queue) {
          return program_to(make_spreading_program(take, {-1, workers, by_destination, queue}));
        },
        "take"_a, nb::kw_only(), "workers"_a, "by_destination"_a, "queue"_a = -1);
}

}  // namespace edgeos
