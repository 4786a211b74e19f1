// Where an agent can be reached from the host.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>

namespace hatchery {

// A unix socket that carries the agent's ttrpc bytes (a virtio-serial port's host side).
struct UnixEndpoint {
  std::filesystem::path path;
  bool operator==(const UnixEndpoint&) const = default;
};

// A unix socket on which "CONNECT <port>\n" is answered by "OK …\n" and then carries the bytes
// (Firecracker, Cloud Hypervisor).
struct HybridVsockEndpoint {
  std::filesystem::path path;
  std::uint32_t port = 1024;
  bool operator==(const HybridVsockEndpoint&) const = default;
};

// AF_VSOCK.
struct VsockEndpoint {
  std::uint32_t cid = 0;
  std::uint32_t port = 1024;
  bool operator==(const VsockEndpoint&) const = default;
};

using Endpoint = std::variant<UnixEndpoint, HybridVsockEndpoint, VsockEndpoint>;

// "unix:///run/x.sock", "hvsock:///run/x.sock:1024", "vsock://3:1024".
std::string ToString(const Endpoint& endpoint);

}  // namespace hatchery
