// Acquires go first: cloning for pools and destroying what was released take longer than an
// acquire, and a host has few CPUs, so they wait for a moment without one, and no longer than told.
//
// Loop thread only.
#pragma once

#include <chrono>
#include <cstddef>

#include "base/notifier.h"
#include "base/task.h"

namespace hatchery::cache {

// How long other work may be put off.
struct PutOff {
  // After an acquire, the next is waited for this long: those of a burst arrive within a few
  // milliseconds of each other, and a refill that comes so much later is not missed, since a clone
  // takes ten times as long.
  std::chrono::nanoseconds quiet = std::chrono::milliseconds(5);
  // Long enough for a burst of 50 to pass under emulation, short enough that a pool of 50 survives
  // 200 acquires per second. A pool that was put off so long does not wait again until it is full.
  std::chrono::nanoseconds refill = std::chrono::milliseconds(250);
  // A released VM still has its memory, and a caller may wait for its end.
  std::chrono::nanoseconds destroy = std::chrono::milliseconds(50);
};

class RightOfWay {
 public:
  explicit RightOfWay(Executor executor) : ended_(std::move(executor)) {}

  // An acquire runs for as long as it lives.
  class Acquire {
   public:
    explicit Acquire(RightOfWay& way) : way_(way) { ++way_.running_; }
    ~Acquire() { way_.Ended(); }
    Acquire(const Acquire&) = delete;
    Acquire& operator=(const Acquire&) = delete;

   private:
    RightOfWay& way_;
  };

  // True when no acquire runs and none has ended for `quiet`: where one was, the next may follow.
  bool IsFree(std::chrono::nanoseconds quiet) const;

  // Returns when IsFree(quiet), at `at_latest`, or when cancelled.
  asio::awaitable<void> WaitUntilFree(std::chrono::nanoseconds quiet, Deadline at_latest);

 private:
  void Ended();

  std::size_t running_ = 0;
  Deadline last_end_{};
  Notifier ended_;  // no acquire runs any more
};

}  // namespace hatchery::cache
