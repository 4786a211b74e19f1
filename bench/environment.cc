#include "bench/environment.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <iterator>
#include <sstream>
#include <thread>

#include "base/files.h"
#include "base/process.h"
#include "base/run.h"
#include "bench/commit.h"

namespace hatchery::bench {

namespace {

constexpr const char* kUnknown = "unknown";

std::string Now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  std::array<char, 32> text{};
  if (::gmtime_r(&now, &utc) == nullptr) return kUnknown;
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text.data();
}

// The value of the first line of cpuinfo that has that name.
std::string CpuInfo(const fs::path& root, std::string_view name) {
  const auto text = ReadFile(root / "proc/cpuinfo");
  if (!text) return {};
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(": ");
    if (line.starts_with(name) && colon != std::string::npos) return line.substr(colon + 2);
  }
  return {};
}

// The three averages of /proc/loadavg: 1, 5 and 15 minutes.
std::string Load(const fs::path& root) {
  const auto text = ReadFile(root / "proc/loadavg");
  if (!text) return kUnknown;
  std::istringstream words(*text);
  std::string one, five, fifteen;
  if (!(words >> one >> five >> fifteen)) return kUnknown;
  return one + " " + five + " " + fifteen;
}

// The first line of a file, empty if there is none.
std::string Line(const fs::path& path) {
  auto text = ReadFile(path);
  return text ? text->substr(0, text->find('\n')) : std::string();
}

std::string Virtualization(const fs::path& root) {
  asio::io_context io;
  PosixSpawner spawner(io.get_executor());
  const auto said = RunUntilDone(
      io, RunCommand(spawner, {"systemd-detect-virt", "--vm"}, After(std::chrono::seconds(5))));
  // On bare metal it says "none" and fails.
  const std::string name = said ? said->out.substr(0, said->out.find('\n')) : std::string();
  return name.empty() ? GuessVirtualization(root) : name;
}

}  // namespace

std::string GuessVirtualization(const fs::path& root) {
  const std::string flags = CpuInfo(root, "flags");
  if (flags.empty()) return kUnknown;
  std::istringstream words(flags);
  const std::istream_iterator<std::string> first(words), last;
  if (std::find(first, last, "hypervisor") == last) return "none";
  const fs::path dmi = root / "sys/class/dmi/id";
  std::string what = "a VM";
  for (const char* name : {"sys_vendor", "product_name"}) {
    if (const std::string line = Line(dmi / name); !line.empty()) what += " " + line;
  }
  return what;
}

std::string DescribeAccelerator(std::string_view accelerator, const Environment& host) {
  const bool in_vm = host.virtualization != "none" && host.virtualization != kUnknown &&
                     !host.virtualization.empty();
  return std::string(accelerator) + (accelerator == "kvm" && in_vm ? ", nested" : "");
}

Environment DescribeHost(const fs::path& root) {
  Environment e;
  e.time = Now();
  e.hatchery = HATCHERY_VERSION;
  e.commit = BuildCommit();
  e.cpu = CpuInfo(root, "model name");
  if (e.cpu.empty()) e.cpu = kUnknown;
  e.cores = std::thread::hardware_concurrency();
  const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  e.memory_mib = pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) >> 20;
  utsname names{};
  e.kernel = ::uname(&names) == 0 ? std::string(names.sysname) + " " + names.release : kUnknown;
  e.virtualization = Virtualization(root);
  e.load = Load(root);
  return e;
}

}  // namespace hatchery::bench
