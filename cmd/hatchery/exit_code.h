// What the command line's exit codes mean. `run` and `vm exec` exit with their command's own.
#pragma once

namespace hatchery::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
// Of `run` and `vm exec`, as timeout(1) and container runtimes have them.
inline constexpr int kExitTimedOut = 124;
inline constexpr int kExitHatcheryFailed = 125;
// Plus the signal's number.
inline constexpr int kExitSignalled = 128;

}  // namespace hatchery::cli
