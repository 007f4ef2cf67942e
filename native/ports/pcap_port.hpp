// Capture files: reads pcap and pcapng, writes either.
//
// Manual: reads both byte orders, microseconds and nanoseconds, several sections and interfaces; Ethernet only. Writes
// pcapng when the file name ends in ".pcapng", pcap with nanoseconds otherwise, in the machine's byte order. Files are
// read in bounded pieces, never whole. What is readable before a truncation or corruption is delivered, and problem()
// says where it ended. Owner: the worker's data-plane thread. The first write that fails drops what is queued; what was
// written before stays readable.
#pragma once

#include <memory>
#include <string>

#include "port.hpp"

namespace edgeos {

class CaptureReader;
class CaptureWriter;

class PcapPort final : public Port {
 public:
  // The file to read and the file to write; empty for none.
  PcapPort(std::string name, const std::string& read_path, const std::string& write_path);
  ~PcapPort() override;  // writes what is still queued

  uint32_t receive(Packet* out, uint32_t max) override;
  bool send(const uint8_t* data, uint32_t len, uint64_t time_ns) override;
  void flush() override;
  uint32_t queued() const override;
  bool lossless() const override { return true; }
  bool exhausted() const override;
  std::string problem() const override;

 private:
  std::unique_ptr<CaptureReader> reader_;
  std::unique_ptr<CaptureWriter> writer_;
};

}  // namespace edgeos
