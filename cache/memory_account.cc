#include "cache/memory_account.h"

#include <limits>

namespace hatchery::cache {

std::int64_t MemoryAccount::Room() const {
  if (!accounts() || !host_) return std::numeric_limits<std::int64_t>::max();
  const auto clones = clones_being_made_ + clones_since_look_;
  const Bytes taken(limits_.host_reserve.count() + growth_.count() / 100 * limits_.growth_percent +
                    clones * typical_clone_.count());
  return static_cast<std::int64_t>(host_->available.count()) -
         static_cast<std::int64_t>(taken.count());
}

void MemoryAccount::HostIs(HostMemory now) {
  host_ = now;
  clones_since_look_ = 0;
}

void MemoryAccount::CloneMeasured(Bytes private_memory) {
  // The last few count; templates differ, and one odd clone should not decide.
  typical_clone_ =
      measured_ ? Bytes((typical_clone_.count() * 3 + private_memory.count()) / 4) : private_memory;
  measured_ = true;
}

}  // namespace hatchery::cache
