// Attaches an XDP program to a network device: in the driver's own mode (native) where it has one, else by the generic way
// for any device.
//
// Set-up. Throws with `device` and the fix.
#pragma once

#include <string>

#include "descriptor.hpp"

namespace edgeos {

enum class XdpMode : uint8_t { native, generic };

const char* to_text(XdpMode mode);

struct XdpLink {
  Descriptor fd;  // the program is attached as long as somebody has it
  XdpMode mode;
};

XdpLink attach_xdp(const std::string& device, int interface, int program);
Descriptor attach_xdp(const std::string& device, int interface, int program, XdpMode mode);

}  // namespace edgeos
