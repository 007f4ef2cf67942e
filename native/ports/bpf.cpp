#include "bpf.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include "descriptor.hpp"

namespace edgeos {
namespace {

int bpf(bpf_cmd command, bpf_attr& attributes) {
  return static_cast<int>(syscall(SYS_bpf, command, &attributes, sizeof attributes));
}

int load(bpf_prog_type type, bpf_attach_type attach, const std::vector<bpf_insn>& program) {
  static constexpr char kLicense[] = "unspecified";  // the one helper that is called asks for none
  bpf_attr attributes{};
  attributes.prog_type = type;
  attributes.expected_attach_type = attach;
  attributes.insns = reinterpret_cast<uint64_t>(program.data());
  attributes.insn_cnt = static_cast<uint32_t>(program.size());
  attributes.license = reinterpret_cast<uint64_t>(kLicense);
  return bpf(BPF_PROG_LOAD, attributes);
}

const char* fix_for(int error) {
  if (error == EPERM) return "needs CAP_BPF and CAP_NET_ADMIN, and not in a user namespace: run as root";
  if (error == EACCES) return "with `take` needs CAP_PERFMON too: run as root";
  if (error == ENOSYS) return "this kernel has no BPF (CONFIG_BPF_SYSCALL): use kind = \"afpacket\"";
  if (error == ENOMEM) return "raise the limit of locked memory: `ulimit -l`";
  return "AF_XDP needs Linux 5.10 or later with CONFIG_XDP_SOCKETS: use kind = \"afpacket\"";
}

// All maps of ours lead from a number to a number.
int make_map(const std::string& device, bpf_map_type type, uint32_t entries) {
  bpf_attr attributes{};
  attributes.map_type = type;
  attributes.key_size = attributes.value_size = sizeof(uint32_t);
  attributes.max_entries = entries;
  const int fd = bpf(BPF_MAP_CREATE, attributes);
  if (fd < 0) throw_errno(device, "cannot make a BPF map", fix_for(errno));
  return fd;
}

int set_entry(int map, uint32_t key, uint32_t value) {
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(map);
  attributes.key = reinterpret_cast<uint64_t>(&key);
  attributes.value = reinterpret_cast<uint64_t>(&value);
  return bpf(BPF_MAP_UPDATE_ELEM, attributes);
}

}  // namespace

int make_socket_map(const std::string& device, uint32_t queues) { return make_map(device, BPF_MAP_TYPE_XSKMAP, queues); }

void set_map_socket(const std::string& device, int map, uint32_t queue, int socket) {
  if (set_entry(map, queue, static_cast<uint32_t>(socket)) < 0)
    throw_errno(device, "cannot give the socket to the BPF map", fix_for(errno));
}

int make_device_map(const std::string& device, uint32_t workers) { return make_map(device, BPF_MAP_TYPE_DEVMAP, workers); }

void set_map_device(const std::string& device, int map, uint32_t worker, int interface) {
  if (set_entry(map, worker, static_cast<uint32_t>(interface)) < 0)
    throw_errno(device, "cannot give a worker's veth pair to the BPF map", fix_for(errno));
}

int load_xdp_program(const std::string& device, const std::vector<bpf_insn>& program) {
  const int fd = load(BPF_PROG_TYPE_XDP, BPF_XDP, program);
  if (fd < 0) throw_errno(device, "cannot load the XDP program", fix_for(errno));
  return fd;
}

int load_steering_program(const std::string& device, const std::vector<bpf_insn>& program) {
  const int fd = load(BPF_PROG_TYPE_SOCKET_FILTER, bpf_attach_type{}, program);
  if (fd < 0)
    throw_errno(device, "cannot load the program that steers packets to workers",
                "needs CAP_BPF, and not in a user namespace: run as root, or with one worker");
  return fd;
}

int try_xdp_link(int program, int interface, uint32_t flags) {
  bpf_attr attributes{};
  attributes.link_create.prog_fd = static_cast<uint32_t>(program);
  attributes.link_create.target_ifindex = static_cast<uint32_t>(interface);
  attributes.link_create.attach_type = BPF_XDP;
  attributes.link_create.flags = flags;
  return bpf(BPF_LINK_CREATE, attributes);
}

}  // namespace edgeos
