#include "hypervisor/qemu/proc.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <map>
#include <sstream>
#include <vector>

#include "base/files.h"

namespace hatchery::hypervisor::qemu {

Result<VmStats> ParseSmapsRollup(std::string_view text) {
  std::map<std::string, std::uint64_t, std::less<>> kib;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t value = 0;
    if (words >> name >> value && name.ends_with(':')) kib[name.substr(0, name.size() - 1)] = value;
  }
  for (const char* name : {"Rss", "Pss", "Private_Clean", "Private_Dirty"}) {
    if (!kib.contains(name)) return Internal("smaps_rollup has no line " + std::string(name));
  }
  VmStats stats;
  stats.resident = Bytes::KiB(kib["Rss"]);
  stats.proportional = Bytes::KiB(kib["Pss"]);
  stats.private_memory = Bytes::KiB(kib["Private_Clean"] + kib["Private_Dirty"]);
  return stats;
}

Result<std::chrono::nanoseconds> ParseCpuTime(std::string_view stat) {
  // The command name (field 2) may hold anything; what follows its last ')' starts with field 3.
  const auto paren = stat.rfind(')');
  std::istringstream fields(
      std::string(paren == std::string_view::npos ? "" : stat.substr(paren + 1)));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  std::uint64_t user = 0, system = 0;
  if (!(fields >> user >> system)) return Internal("unreadable /proc stat");
  const auto ticks_per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return std::chrono::nanoseconds((user + system) * (1'000'000'000 / ticks_per_second));
}

Result<VmStats> ReadProcessStats(pid_t pid) {
  const fs::path proc = "/proc/" + std::to_string(pid);
  ASSIGN_OR_RETURN(const std::string rollup, ReadFile(proc / "smaps_rollup"));
  ASSIGN_OR_RETURN(const std::string stat, ReadFile(proc / "stat"));
  ASSIGN_OR_RETURN(VmStats stats, ParseSmapsRollup(rollup));
  ASSIGN_OR_RETURN(stats.cpu_time, ParseCpuTime(stat));
  return stats;
}

namespace {

// A field of the first CPU in /proc/cpuinfo.
Result<std::string> CpuInfo(std::string_view field) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile("/proc/cpuinfo"));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line) && !line.empty();) {
    if (line.starts_with(field)) return line.substr(std::min(line.size(), line.find(": ") + 2));
  }
  return Internal("/proc/cpuinfo names no " + std::string(field));
}

}  // namespace

Result<std::string> HostCpuModel() { return CpuInfo("model name"); }

Result<std::string> HostCpuFeatures() {
  ASSIGN_OR_RETURN(const std::string flags, CpuInfo("flags"));
  return CpuInfo("model name").value_or("") + ": " + flags;
}

Result<std::string> FindProgram(const std::string& name) {
  std::vector<std::string> candidates;
  if (name.find('/') != std::string::npos) {
    candidates.push_back(name);
  } else {
    const char* path = std::getenv("PATH");
    std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
      candidates.push_back(folder + "/" + name);
    }
  }
  bool found = false;
  for (const auto& candidate : candidates) {
    struct stat info{};
    if (::stat(candidate.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    found = true;
  }
  if (found) return MakeError(Code::kPermissionDenied, "QEMU '" + name + "' is not executable");
  return NotFound("QEMU '" + name + "' was not found; install qemu-system-x86 or set its path");
}

Result<std::string> FileIdentity(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return ErrnoError(errno, "looking at " + path);
  std::ostringstream identity;
  identity << path << ' ' << info.st_dev << ' ' << info.st_ino << ' ' << info.st_size << ' '
           << info.st_mtim.tv_sec << '.' << info.st_mtim.tv_nsec;
  return identity.str();
}

}  // namespace hatchery::hypervisor::qemu
