#include "bench/environment.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <sstream>
#include <thread>

#include "base/files.h"

namespace hatchery::bench {

namespace {

constexpr const char* kUnknown = "unknown";

std::string CpuModel() {
  const auto text = ReadFile("/proc/cpuinfo");
  if (!text) return kUnknown;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return kUnknown;
}

// The three averages of /proc/loadavg: 1, 5 and 15 minutes.
std::string Load() {
  const auto text = ReadFile("/proc/loadavg");
  if (!text) return kUnknown;
  std::istringstream words(*text);
  std::string one, five, fifteen;
  words >> one >> five >> fifteen;
  return one + " " + five + " " + fifteen;
}

}  // namespace

Environment DescribeHost() {
  Environment e;
  e.cpu = CpuModel();
  e.cores = std::thread::hardware_concurrency();
  utsname names{};
  e.kernel = ::uname(&names) == 0 ? std::string(names.sysname) + " " + names.release : kUnknown;
  e.load = Load();
  const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  e.memory_mib = pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) >> 20;
  return e;
}

}  // namespace hatchery::bench
