// Durations as people write and read them.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hatchery {

// Reads "500ms", "10s", "2m", "1h", also "us" and "ns": a whole number and a unit. kInvalidArgument
// names what was given. Never more than about 292 years, what 64 bits of nanoseconds hold.
Result<std::chrono::nanoseconds> ParseDuration(std::string_view text);

// Exact, and readable by ParseDuration(): the largest unit that gives a whole number ("90s", "2m").
std::string ToString(std::chrono::nanoseconds duration);

// For sentences: "30 s", rounded up.
std::string ToWholeSeconds(std::chrono::nanoseconds duration);

// For tables: three digits at most below a minute ("640 us", "1.24 ms", "2.41 s"), two units above
// ("3m12s", "5h4m", "2d1h").
std::string ToHuman(std::chrono::nanoseconds duration);

}  // namespace hatchery
