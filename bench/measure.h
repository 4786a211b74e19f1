// Small things that every measurement needs.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "base/status.h"

namespace hatchery::bench {

using SteadyClock = std::chrono::steady_clock;

inline double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// CPU time that a process has used, all of its threads, in user and in kernel mode: to the
// nanosecond, where /proc/PID/stat counts in ticks of 10 ms. kNotFound when it is gone.
Result<double> CpuSeconds(pid_t pid);

// The memory that a process holds in memfds, each counted once: the daemon's templates. Nothing
// when it cannot be read.
std::optional<double> MemfdBytes(pid_t pid);

// What ten commands in a VM took, one after the other.
struct Commands {
  double first = 0, tenth = 0;        // the first and the tenth by themselves
  double to_first = 0, to_tenth = 0;  // from `start` to the end of each
};
// `run` runs one command and returns what it took. The first failure ends it.
Result<Commands> RunTen(SteadyClock::time_point start, const std::function<Result<double>()>& run);

// Something that grows to 1, then to whole multiples of `step` (at least 1), up to `most`, while
// its size stays below `limit`: the next count after `count`, which has `size` now, if those to
// come are as large as those that there are. `count` itself where it ends.
std::uint32_t NextCount(std::uint32_t count, std::uint32_t step, std::uint32_t most, double size,
                        double limit);

}  // namespace hatchery::bench
