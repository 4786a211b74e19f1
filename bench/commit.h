// Which commit the programs were built from.
#pragma once

#include <string_view>

namespace hatchery::bench {

// Twelve digits, with "-dirty" behind them if tracked files had changes; "unknown" if the build was
// not from a git work tree. As of the last build.
std::string_view BuildCommit();

}  // namespace hatchery::bench
