// What each tenant holds of what it may hold: leases, vCPUs, memory. Counts, and nothing else:
// taken before a VM is made ready, so that a burst cannot overshoot, and given back exactly once by
// whoever took them (see Grant in admission.h). Loop thread only.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "cache/settings.h"

namespace hatchery::cache {

class Quotas {
 public:
  struct Held {
    std::uint32_t leases = 0;
    std::uint64_t vcpus = 0;
    Bytes memory;
    bool operator==(const Held&) const = default;
  };

  // `limits` outlives this.
  explicit Quotas(const Limits& limits) : limits_(limits) {}

  // Takes one lease of these sizes. kResourceExhausted says what the tenant holds and the limit,
  // with a hint when to try again, unless the request alone is more than may ever be held.
  Result<void> Take(const std::string& tenant, std::uint32_t vcpus, Bytes memory);
  // The same, without asking: a lease that an earlier daemon granted.
  void Restore(const std::string& tenant, std::uint32_t vcpus, Bytes memory);
  void GiveBack(const std::string& tenant, std::uint32_t vcpus, Bytes memory);

  // Of tenants that hold something.
  const std::map<std::string, Held>& held() const { return held_; }

 private:
  const Limits& limits_;
  std::map<std::string, Held> held_;
};

}  // namespace hatchery::cache
