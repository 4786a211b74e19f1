#include "base/endpoint.h"

namespace hatchery {

std::string ToString(const Endpoint& endpoint) {
  struct Visitor {
    std::string operator()(const UnixEndpoint& e) const { return "unix://" + e.path.string(); }
    std::string operator()(const HybridVsockEndpoint& e) const {
      return "hvsock://" + e.path.string() + ":" + std::to_string(e.port);
    }
    std::string operator()(const VsockEndpoint& e) const {
      return "vsock://" + std::to_string(e.cid) + ":" + std::to_string(e.port);
    }
  };
  return std::visit(Visitor(), endpoint);
}

}  // namespace hatchery
