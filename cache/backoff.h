// How long to wait before something that failed is tried again: doubling, up to a most. Loop thread
// only.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/task.h"

namespace hatchery::cache {

class Backoff {
 public:
  constexpr Backoff(std::chrono::nanoseconds first, std::chrono::nanoseconds last)
      : first_(first), last_(last) {}

  // It failed once more, or as good as `failures` times. The wait that begins with it, at least so
  // long; none if one is under way already.
  std::optional<std::chrono::nanoseconds> Failed(std::chrono::nanoseconds at_least = {},
                                                 int failures = 0) {
    failures_ = std::max(failures_ + 1, failures);
    if (waits()) return std::nullopt;
    const auto wait =
        std::max(std::min(first_ * (1 << std::min(failures_ - 1, 10)), last_), at_least);
    until_ = After(wait);
    return wait;
  }
  void Succeeded() { failures_ = 0; }
  // What made it fail may be gone.
  void Forgive() {
    failures_ = 0;
    until_ = {};
  }

  bool waits() const { return std::chrono::steady_clock::now() < until_; }
  int failures() const { return failures_; }  // in a row

 private:
  std::chrono::nanoseconds first_, last_;
  int failures_ = 0;
  Deadline until_{};
};

}  // namespace hatchery::cache
