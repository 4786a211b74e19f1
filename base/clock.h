// The wall clock, as a seam: leases, ages and the time handed to guests are read from it. Waiting
// is done with deadlines on the steady clock (base/task.h).
#pragma once

#include <chrono>

namespace hatchery {

using WallTime = std::chrono::system_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime Now() const = 0;
};

class SystemClock final : public Clock {
 public:
  WallTime Now() const override { return std::chrono::system_clock::now(); }
};

// For tests: stands still until told.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(WallTime start = WallTime(std::chrono::seconds(1'700'000'000)))
      : now_(start) {}
  WallTime Now() const override { return now_; }
  void Advance(std::chrono::nanoseconds by) {
    now_ += std::chrono::duration_cast<WallTime::duration>(by);
  }

 private:
  WallTime now_;
};

}  // namespace hatchery
