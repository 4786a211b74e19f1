#include "bench/measure.h"

#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "base/files.h"

namespace hatchery::bench {

Result<double> CpuSeconds(pid_t pid) {
  const std::string what = "CPU time of process " + std::to_string(pid);
  clockid_t clock{};
  if (const int error = ::clock_getcpuclockid(pid, &clock); error != 0) {
    return error == ESRCH ? NotFound(what + ": there is none") : ErrnoError(error, what);
  }
  timespec time{};
  if (::clock_gettime(clock, &time) != 0) {
    // The clock of a process that has ended since.
    return errno == EINVAL ? NotFound(what + ": it has ended") : ErrnoError(errno, what);
  }
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

std::optional<double> MemfdBytes(pid_t pid) {
  const fs::path folder = fs::path("/proc") / std::to_string(pid) / "fd";
  std::set<ino_t> seen;
  double bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::error_code gone;
    if (!fs::read_symlink(entry.path(), gone).string().starts_with("/memfd:")) continue;
    struct stat info{};
    if (::stat(entry.path().c_str(), &info) != 0 || !seen.insert(info.st_ino).second) continue;
    bytes += static_cast<double>(info.st_blocks) * 512;
  }
  if (error || seen.empty()) return std::nullopt;
  return bytes;
}

Result<Commands> RunTen(SteadyClock::time_point start, const std::function<Result<double>()>& run) {
  Commands commands;
  ASSIGN_OR_RETURN(commands.first, run());
  commands.to_first = SecondsSince(start);
  for (int i = 2; i <= 10; ++i) {
    ASSIGN_OR_RETURN(commands.tenth, run());
  }
  commands.to_tenth = SecondsSince(start);
  return commands;
}

std::uint32_t NextCount(std::uint32_t count, std::uint32_t step, std::uint32_t most, double size,
                        double limit) {
  if (count == 0) return std::min(1u, most);
  step = std::max(1u, step);
  const std::uint32_t wanted = std::min((count / step + 1) * step, most);
  if (wanted <= count) return count;
  const double room = std::max(0.0, (limit - size) / (size / count));
  return room < wanted - count ? count + static_cast<std::uint32_t>(room) : wanted;
}

}  // namespace hatchery::bench
