// How much memory may still be given out. Sums only, each kept up to date by a single addition, so
// that asking costs nothing:
//
//   room  =  available now                  looked at every so often; VMs' memory is gone from it
//          - reserve                        the host's ([limits] host_reserve)
//          - growth                         what leased VMs may still grow to: the guest's memory
//          less
//                                           what the VM has privately, times [limits]
//                                           growth_percent
//          - clones since the last look     what a clone usually takes, for each
//
// A leased VM that grows takes from "available" what its next measurement takes off "growth": until
// then it counts twice, never not at all. Loop thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "cache/host_memory.h"
#include "cache/settings.h"

namespace hatchery::cache {

class MemoryAccount {
 public:
  // `limits` outlives this.
  explicit MemoryAccount(const Limits& limits) : limits_(limits) {}

  // False: everything fits ([limits] host_reserve is 0).
  bool accounts() const { return limits_.host_reserve != Bytes(); }

  // In bytes; negative when more is promised than there is. As much as can be when memory is not
  // accounted, or nobody has looked at the host yet.
  std::int64_t Room() const;

  // The host has been looked at: clones that were made before are in its figures.
  void HostIs(HostMemory now);
  const std::optional<HostMemory>& host() const { return host_; }

  // What a leased VM may still grow to.
  static Bytes GrowthOf(Bytes memory, Bytes private_memory) {
    return private_memory < memory ? memory - private_memory : Bytes();
  }
  void AddGrowth(Bytes growth) { growth_ += growth; }
  void RemoveGrowth(Bytes growth) { growth_ = growth_ - growth; }
  Bytes growth() const { return growth_; }

  // A clone is counted from its begin until the first look after its end, however it ended.
  void CloneBegun() { ++clones_being_made_; }
  void CloneEnded() {
    --clones_being_made_;
    ++clones_since_look_;
  }

  // What a warm clone takes privately: a guess until the first was measured, then what recent ones
  // took.
  Bytes typical_clone() const { return typical_clone_; }
  void CloneMeasured(Bytes private_memory);

 private:
  const Limits& limits_;
  std::optional<HostMemory> host_;
  Bytes growth_;
  std::size_t clones_being_made_ = 0, clones_since_look_ = 0;
  Bytes typical_clone_ = Bytes::MiB(32);
  bool measured_ = false;
};

}  // namespace hatchery::cache
