#include "pcap_port.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "descriptor.hpp"

namespace edgeos {
namespace {

constexpr uint32_t kPcapMicro = 0xa1b2c3d4, kPcapNano = 0xa1b23c4d;
constexpr uint32_t kSectionBlock = 0x0a0d0d0a, kInterfaceBlock = 1, kOldPacketBlock = 2, kSimpleBlock = 3,
                   kPacketBlock = 6, kByteOrderMagic = 0x1a2b3c4d;
constexpr uint16_t kTimeResolution = 9, kTimeOffset = 14;  // options of an interface block
constexpr uint32_t kEthernet = 1;
constexpr uint32_t kPcapHeaderBytes = 24, kRecordBytes = 16, kPacketBlockBytes = 32, kSectionBlockBytes = 28,
                   kInterfaceBlockBytes = 20;
constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint32_t kCapturedMax = 262144;  // the largest snap length that capture programs set
// The largest block that is looked into: a packet with 64 KiB of options.
constexpr uint32_t kBlockMax = kCapturedMax + 65536 + kPacketBlockBytes;
// Read in pieces of at least two thirds of this, so that moving the rest to the front stays cheap.
constexpr size_t kReadBytes = 1 << 20;
static_assert(kReadBytes > 2 * kBlockMax);
constexpr size_t kWriteBytes = 512 << 10;
static_assert(kWriteBytes > kCapturedMax + kPacketBlockBytes);
constexpr size_t kInterfacesMax = 4096;

constexpr uint32_t pad4(uint32_t len) { return (len + 3) & ~3u; }

struct Interface {
  uint32_t snap_len = 0;
  uint8_t resolution = 6;  // of a second: 10^-n, or 2^-n with the top bit set
  uint64_t offset_s = 0;
};

uint64_t to_ns(uint64_t ticks, const Interface& interface) {
  unsigned __int128 time = ticks;
  const uint8_t exponent = interface.resolution & 0x7f;
  if ((interface.resolution & 0x80) != 0) {
    time = time * kSecond >> exponent;
  } else {
    for (int i = exponent; i < 9; i++) time *= 10;
    for (int i = exponent; i > 9 && time != 0; i--) time /= 10;
  }
  return static_cast<uint64_t>(time) + interface.offset_s * kSecond;
}

int open_capture(const std::string& path, int flags, const char* what) {
  // Without O_NONBLOCK a named pipe would hold up the whole node before it is refused.
  const int fd = open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0644);
  if (fd < 0) throw_errno(path, what, "check the path and its permissions");
  return fd;
}

struct stat status_of(const Descriptor& file, const std::string& path) {
  struct stat status;
  if (fstat(file.get(), &status) < 0) throw_errno(path, "cannot read the file's status", "check the file system");
  return status;
}

}  // namespace

class CaptureReader {
 public:
  explicit CaptureReader(const std::string& path)
      : path_(path),
        file_(open_capture(path, O_RDONLY, "cannot open the capture file")),
        buffer_(std::make_unique_for_overwrite<uint8_t[]>(kReadBytes)) {
    if (!S_ISREG(status_of(file_, path).st_mode)) refuse("not a regular file (captures are read from files only)");
    refill();
    if (!read_error_.empty()) refuse(read_error_);
    if (end_ < sizeof kSectionBlock) refuse("not a capture file: only " + std::to_string(end_) + " bytes long");
    pcapng_ = load32(at()) == kSectionBlock;
    if (!pcapng_) {
      read_pcap_header();
      return;
    }
    // A file of another link type is refused now; what is wrong further on is for problem().
    Packet first;
    size_t size;
    locate(first, size);
    if (link_refused_ || begin_ == 0) throw std::runtime_error(problem_);
  }

  uint32_t receive(Packet* out, uint32_t max) {
    uint32_t count = 0;
    size_t size = 0;
    while (count == 0 && max > 0 && !finished_) {
      refill();  // views of the last burst end here
      for (; count < max && locate(out[count], size); count++, packets_++) begin_ += size;
    }
    return count;
  }

  bool finished() const { return finished_; }
  const std::string& problem() const { return problem_; }
  const Descriptor& file() const { return file_; }

 private:
  // Afterwards a whole block is in the buffer, or the rest of the file.
  void refill() {
    if (at_eof_ || end_ - begin_ >= kBlockMax) return;
    std::memmove(buffer_.get(), at(), end_ - begin_);
    buffer_offset_ += begin_;
    end_ -= begin_;
    begin_ = 0;
    while (end_ < kReadBytes && !at_eof_) {
      const ssize_t bytes = read(file_.get(), buffer_.get() + end_, kReadBytes - end_);
      if (bytes > 0) {
        end_ += static_cast<size_t>(bytes);
      } else if (bytes == 0 || errno != EINTR) {
        at_eof_ = true;
        if (bytes < 0) read_error_ = "cannot be read: " + errno_text(errno);
      }
    }
  }

  void read_pcap_header() {
    uint32_t magic = load32(at());
    swapped_ = magic == __builtin_bswap32(kPcapMicro) || magic == __builtin_bswap32(kPcapNano);
    magic = load32(at());
    if (magic != kPcapMicro && magic != kPcapNano)
      refuse("not a capture file: it begins with neither a pcap nor a pcapng magic number");
    if (end_ < kPcapHeaderBytes) refuse("truncated within the file header");
    const uint32_t link = load32(at() + 20) & 0x0fffffff;  // the top bits tell the length of the frame check sequence
    if (link != kEthernet) refuse("link type " + std::to_string(link) + " is not supported, only Ethernet (1)");
    ns_per_tick_ = magic == kPcapNano ? 1 : 1000;
    begin_ = kPcapHeaderBytes;
  }

  // True when the buffer holds that many bytes. Otherwise this burst ends, or the file does.
  bool enough(size_t bytes) {
    if (end_ - begin_ >= bytes) return true;
    if (!at_eof_) return false;
    if (begin_ != end_ || !read_error_.empty()) return stop_short();
    finished_ = true;
    return false;
  }

  bool locate(Packet& packet, size_t& size) {
    return !finished_ && (pcapng_ ? locate_block(packet, size) : locate_record(packet, size));
  }

  bool locate_record(Packet& packet, size_t& size) {
    if (!enough(kRecordBytes)) return false;
    const uint8_t* record = at();
    const uint32_t len = load32(record + 8);
    if (len > kCapturedMax)
      return stop("corrupt: a packet of " + std::to_string(len) + " bytes, over " + std::to_string(kCapturedMax));
    size = kRecordBytes + size_t{len};
    if (!enough(size)) return false;
    packet = {record + kRecordBytes, len, load32(record) * kSecond + load32(record + 4) * ns_per_tick_};
    return true;
  }

  // Reads the blocks before the next packet block, and that one without going past it.
  bool locate_block(Packet& packet, size_t& size) {
    while (skip_rest() && enough(12)) {
      const uint8_t* block = at();
      const bool section = load32(block) == kSectionBlock;  // reads the same in either byte order
      if (section && !read_section(block)) return false;
      const uint32_t type = load32(block), length = load32(block + 4);
      const bool is_packet = type == kPacketBlock || type == kOldPacketBlock || type == kSimpleBlock;
      const bool is_known = is_packet || section || type == kInterfaceBlock;
      if (length < 12 || length % 4 != 0 || (is_known && length > kBlockMax))
        return stop("corrupt: a block of " + std::to_string(length) + " bytes");
      if (length > kBlockMax) {
        skip_ = length;
        continue;
      }
      if (!enough(length)) return false;
      if (load32(block + length - 4) != length) return stop("corrupt: a block's two lengths differ");
      if (is_packet) {
        size = length;
        return read_packet(block, length, packet);
      }
      if (section && length < kSectionBlockBytes) return stop("corrupt: short section block");
      if (section) interfaces_.clear();
      if (type == kInterfaceBlock && !read_interface(block, length)) return false;
      begin_ += length;
    }
    return false;
  }

  bool skip_rest() {
    const size_t bytes = std::min<uint64_t>(skip_, end_ - begin_);
    begin_ += bytes;
    skip_ -= bytes;
    if (skip_ == 0) return true;
    return at_eof_ && stop_short();
  }

  bool read_section(const uint8_t* block) {
    uint32_t magic;
    std::memcpy(&magic, block + 8, sizeof magic);
    swapped_ = magic != kByteOrderMagic;
    return load32(block + 8) == kByteOrderMagic || stop("corrupt: no byte-order magic");
  }

  bool read_interface(const uint8_t* block, uint32_t length) {
    if (length < kInterfaceBlockBytes) return stop("corrupt: short interface block");
    if (interfaces_.size() == kInterfacesMax) return stop("over " + std::to_string(kInterfacesMax) + " interfaces");
    const uint16_t link = load<uint16_t>(block + 8);
    link_refused_ = link != kEthernet;
    if (link_refused_)
      return stop("interface " + std::to_string(interfaces_.size()) + " has link type " + std::to_string(link) +
                  ", only Ethernet (1) is supported; stopped");
    Interface interface{load32(block + 12)};
    const uint32_t end = length - 4;
    for (uint32_t option = 16; option + 4 <= end;) {
      const uint16_t code = load<uint16_t>(block + option), bytes = load<uint16_t>(block + option + 2);
      if (code == 0) break;
      if (bytes > end - option - 4) return stop("corrupt: an interface option runs over its block");
      if (code == kTimeResolution && bytes >= 1) interface.resolution = block[option + 4];
      if (code == kTimeOffset && bytes >= 8) interface.offset_s = load<uint64_t>(block + option + 4);
      option += 4 + pad4(bytes);
    }
    interfaces_.push_back(interface);
    return true;
  }

  bool read_packet(const uint8_t* block, uint32_t length, Packet& packet) {
    const uint32_t type = load32(block);
    const bool simple = type == kSimpleBlock;
    const uint32_t header = simple ? 12 : kPacketBlockBytes - 4;
    if (length < header + 4) return stop("corrupt: short packet block");
    const uint32_t number = simple ? 0 : type == kPacketBlock ? load32(block + 8) : load<uint16_t>(block + 8);
    if (number >= interfaces_.size()) return stop("corrupt: a packet of unknown interface " + std::to_string(number));
    const Interface& interface = interfaces_[number];
    uint32_t len = load32(block + (simple ? 8 : 20));
    if (simple && interface.snap_len != 0) len = std::min(len, interface.snap_len);  // what was captured is not told
    if (len > kCapturedMax || len > length - header - 4)
      return stop("corrupt: a packet of " + std::to_string(len) + " bytes in a block of " + std::to_string(length));
    if (!simple) last_time_ns_ = to_ns(uint64_t{load32(block + 12)} << 32 | load32(block + 16), interface);
    packet = {block + header, len, last_time_ns_};  // a simple packet has no time: that of the packet before it
    return true;
  }

  bool stop(const std::string& what) {
    finished_ = true;
    problem_ = path_ + ": " + what + " after packet " + std::to_string(packets_) + ", at byte " +
               std::to_string(buffer_offset_ + begin_);
    return false;
  }

  bool stop_short() { return stop(read_error_.empty() ? "truncated" : read_error_); }

  [[noreturn]] void refuse(const std::string& what) { throw std::runtime_error(path_ + ": " + what); }

  const uint8_t* at() const { return buffer_.get() + begin_; }
  template <typename Value>
  Value load(const uint8_t* from) const {
    Value value;
    std::memcpy(&value, from, sizeof value);
    if constexpr (sizeof value == 2) return swapped_ ? __builtin_bswap16(value) : value;
    if constexpr (sizeof value == 4) return swapped_ ? __builtin_bswap32(value) : value;
    if constexpr (sizeof value == 8) return swapped_ ? __builtin_bswap64(value) : value;
  }
  uint32_t load32(const uint8_t* from) const { return load<uint32_t>(from); }

  std::string path_;
  Descriptor file_;
  std::unique_ptr<uint8_t[]> buffer_;
  size_t begin_ = 0, end_ = 0;  // what is in the buffer and not delivered yet
  uint64_t buffer_offset_ = 0;  // the file offset of the buffer's first byte
  bool at_eof_ = false, finished_ = false, swapped_ = false, pcapng_ = false, link_refused_ = false;
  std::string read_error_, problem_;
  uint64_t packets_ = 0;
  uint64_t ns_per_tick_ = 1;  // pcap
  uint64_t skip_ = 0, last_time_ns_ = 0;  // pcapng, as is what follows
  std::vector<Interface> interfaces_;
};

class CaptureWriter {
 public:
  // `source`: the file that the same port reads, which must be another one; may be null.
  CaptureWriter(const std::string& path, const CaptureReader* source)
      : path_(path),
        pcapng_(path.ends_with(".pcapng")),
        // Not truncated yet: it could be the file that is read.
        file_(open_capture(path, O_WRONLY | O_CREAT, "cannot open the capture file for writing")),
        buffer_(std::make_unique_for_overwrite<uint8_t[]>(kWriteBytes)) {
    const struct stat status = status_of(file_, path);
    if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode))
      throw std::runtime_error(path + ": not a regular file (captures are written to files only)");
    if (source != nullptr) {
      const struct stat other = status_of(source->file(), path);
      if (other.st_dev == status.st_dev && other.st_ino == status.st_ino)
        throw std::runtime_error(path + ": the same port reads this file (write to another one)");
    }
    if (S_ISREG(status.st_mode) && ftruncate(file_.get(), 0) < 0)
      throw_errno(path, "cannot empty the capture file", "check the file's attributes");
    put_header();
    file_bytes_ = used_;
    if (write_buffer() != file_bytes_) throw_errno(path, "cannot write the capture file", "free some space");
    used_ = 0;
  }

  bool append(const uint8_t* data, uint32_t len, uint64_t time_ns, PortCounters& counters) {
    if (!problem_.empty() || len > kCapturedMax) return false;
    if (kWriteBytes - used_ < kPacketBlockBytes + pad4(len)) write_out(counters);
    if (!problem_.empty()) return false;
    if (pcapng_) {
      const uint32_t bytes = kPacketBlockBytes + pad4(len);
      put32({kPacketBlock, bytes, 0, static_cast<uint32_t>(time_ns >> 32), static_cast<uint32_t>(time_ns), len, len});
      put(data, len);
      put("\0\0\0", pad4(len) - len);
      put32({bytes});
    } else {
      put32({static_cast<uint32_t>(time_ns / kSecond), static_cast<uint32_t>(time_ns % kSecond), len, len});
      put(data, len);
    }
    queued_++;
    return true;
  }

  void write_out(PortCounters& counters) {
    const size_t written = write_buffer();
    const int error = errno;
    size_t whole = 0, end = 0;
    while (end < used_) {  // what the file took only in part is dropped
      uint32_t len;
      std::memcpy(&len, buffer_.get() + end + (pcapng_ ? 20 : 8), sizeof len);
      end += pcapng_ ? kPacketBlockBytes + pad4(len) : kRecordBytes + len;
      if (end > written) {
        counters.send_dropped++;
        continue;
      }
      whole = end;
      file_packets_++;
      counters.sent++;
      counters.sent_bytes += len;
    }
    file_bytes_ += whole;
    if (written < used_) {
      problem_ = path_ + ": cannot be written after packet " + std::to_string(file_packets_) + ": " + errno_text(error);
      if (ftruncate(file_.get(), static_cast<off_t>(file_bytes_)) < 0) problem_ += "; its last packet is cut short";
    }
    used_ = 0;
    queued_ = 0;
  }

  uint32_t queued() const { return queued_; }
  const std::string& problem() const { return problem_; }

 private:
  void put_header() {
    if (!pcapng_) {
      put32({kPcapNano, 2 | 4 << 16, 0, 0, kCapturedMax, kEthernet});  // version 2.4
      return;
    }
    put32({kSectionBlock, kSectionBlockBytes, kByteOrderMagic, 1, ~0u, ~0u, kSectionBlockBytes});  // length not told
    constexpr uint32_t bytes = kInterfaceBlockBytes + 12;  // with two options: nanoseconds, and the end
    put32({kInterfaceBlock, bytes, kEthernet, kCapturedMax, kTimeResolution | 1 << 16, 9, 0, bytes});
  }

  // How many bytes of the buffer the file took.
  size_t write_buffer() {
    size_t done = 0;
    while (done < used_) {
      const ssize_t bytes = write(file_.get(), buffer_.get() + done, used_ - done);
      if (bytes > 0) done += static_cast<size_t>(bytes);
      if (bytes == 0 || (bytes < 0 && errno != EINTR)) break;
    }
    return done;
  }

  void put(const void* bytes, size_t len) {
    if (len > 0) std::memcpy(buffer_.get() + used_, bytes, len);
    used_ += len;
  }
  void put32(std::initializer_list<uint32_t> words) {
    for (const uint32_t word : words) put(&word, sizeof word);
  }

  std::string path_;
  bool pcapng_;
  Descriptor file_;
  std::unique_ptr<uint8_t[]> buffer_;
  size_t used_ = 0;
  uint32_t queued_ = 0;
  uint64_t file_bytes_ = 0, file_packets_ = 0;  // whole records in the file
  std::string problem_;
};

PcapPort::PcapPort(std::string name, const std::string& read_path, const std::string& write_path)
    : Port(std::move(name)) {
  if (!read_path.empty()) reader_ = std::make_unique<CaptureReader>(read_path);
  if (!write_path.empty()) writer_ = std::make_unique<CaptureWriter>(write_path, reader_.get());
}

PcapPort::~PcapPort() { flush(); }

uint32_t PcapPort::receive(Packet* out, uint32_t max) {
  if (!reader_) return 0;
  const uint32_t count = reader_->receive(out, max);
  for (uint32_t i = 0; i < count; i++) counters_.received_bytes += out[i].len;
  counters_.received += count;
  return count;
}

bool PcapPort::send(const uint8_t* data, uint32_t len, uint64_t time_ns) {
  return writer_ && writer_->append(data, len, time_ns, counters_);
}

void PcapPort::flush() {
  if (writer_ && writer_->queued() > 0) writer_->write_out(counters_);
}

uint32_t PcapPort::queued() const { return writer_ ? writer_->queued() : 0; }

bool PcapPort::exhausted() const { return !reader_ || reader_->finished(); }

std::string PcapPort::problem() const {
  const std::string reading = reader_ ? reader_->problem() : "", writing = writer_ ? writer_->problem() : "";
  return reading.empty() || writing.empty() ? reading + writing : reading + "; " + writing;
}

}  // namespace edgeos
