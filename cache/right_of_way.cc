#include "cache/right_of_way.h"

namespace hatchery::cache {

using SteadyClock = std::chrono::steady_clock;

bool RightOfWay::IsFree(std::chrono::nanoseconds quiet) const {
  return running_ == 0 && (quiet.count() == 0 || SteadyClock::now() >= last_end_ + quiet);
}

asio::awaitable<void> RightOfWay::WaitUntilFree(std::chrono::nanoseconds quiet,
                                                Deadline at_latest) {
  while (!IsFree(quiet) && SteadyClock::now() < at_latest && !co_await IsCancelled()) {
    if (running_ > 0) {
      (void)co_await ended_.Wait(at_latest);
    } else {
      // Whether another one has come meanwhile is soon enough seen then.
      const Deadline until = Sooner(last_end_ + quiet, at_latest);
      (void)co_await SleepFor(until - SteadyClock::now());
    }
  }
}

void RightOfWay::Ended() {
  if (--running_ > 0) return;
  last_end_ = SteadyClock::now();
  ended_.NotifyAll();
}

}  // namespace hatchery::cache
