// Clocks, as a seam. Ages and the time handed to guests are read from the wall clock, which
// people and NTP set; when a lease ends, from the one that counts from the host's boot, which
// nobody sets. Waiting is done with deadlines on the steady clock (base/task.h).
#pragma once

#include <chrono>
#include <ctime>

namespace hatchery {

using WallTime = std::chrono::system_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime Now() const = 0;
  // Since the host booted, time asleep included: CLOCK_BOOTTIME. Means nothing after a reboot.
  virtual std::chrono::nanoseconds SinceBoot() const = 0;
};

class SystemClock final : public Clock {
 public:
  WallTime Now() const override { return std::chrono::system_clock::now(); }
  std::chrono::nanoseconds SinceBoot() const override {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  }
};

// For tests: stands still until told.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(WallTime start = WallTime(std::chrono::seconds(1'700'000'000)))
      : now_(start) {}
  WallTime Now() const override { return now_; }
  std::chrono::nanoseconds SinceBoot() const override { return since_boot_; }
  void Advance(std::chrono::nanoseconds by) {
    SetBack(-by);
    since_boot_ += by;
  }
  // Somebody sets the wall clock; no time has passed.
  void SetBack(std::chrono::nanoseconds by) {
    now_ -= std::chrono::duration_cast<WallTime::duration>(by);
  }

 private:
  WallTime now_;
  std::chrono::nanoseconds since_boot_ = std::chrono::hours(1);
};

}  // namespace hatchery
