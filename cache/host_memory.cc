#include "cache/host_memory.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "base/files.h"

namespace hatchery::cache {

namespace {

std::optional<Bytes> Number(std::string_view text) {
  std::uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc()) return std::nullopt;
  return Bytes(value);
}

// The number after `name` in lines of names and numbers: "MemTotal:  1 kB", "inactive_file 1".
std::optional<Bytes> Field(const std::string& text, std::string_view name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key, value, unit;
    if (!(words >> key >> value) || key != name) continue;
    const auto number = Number(value);
    return number && words >> unit && unit == "kB" ? Bytes::KiB(number->count()) : number;
  }
  return std::nullopt;
}

std::optional<Bytes> NumberIn(const fs::path& file) {
  const auto text = ReadFile(file);
  return text ? Number(*text) : std::nullopt;  // "max" is no number: no limit
}

// How one version of control groups calls things.
struct Version {
  std::string_view file_system, option, controller;
  const char *limit, *usage;
  std::string_view droppable;
};
constexpr Version kV1 = {"cgroup",
                         "memory",
                         "memory",
                         "memory.limit_in_bytes",
                         "memory.usage_in_bytes",
                         "total_inactive_file"};
constexpr Version kV2 = {"cgroup2", "", "", "memory.max", "memory.current", "inactive_file"};

bool IsOneOf(std::string_view word, const std::string& comma_separated) {
  std::istringstream list(comma_separated);
  for (std::string part; std::getline(list, part, ',');) {
    if (part == word) return true;
  }
  return false;
}

struct Mount {
  fs::path root, at;  // the group that is mounted, and where
};

// proc(5): "36 35 98:0 /root /mount/point rw,noatime shared:1 - cgroup source rw,memory".
std::optional<Mount> FindMount(const std::string& mountinfo, const Version& version) {
  std::istringstream lines(mountinfo);
  for (std::string line; std::getline(lines, line);) {
    const auto dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash)), after(line.substr(dash + 3));
    std::string skipped, root, at, type, source, options;
    before >> skipped >> skipped >> skipped >> root >> at;
    after >> type >> source >> options;
    const bool found =
        type == version.file_system && (version.option.empty() || IsOneOf(version.option, options));
    if (found) return Mount{root, at};
  }
  return std::nullopt;
}

// This process's group: lines of "4:memory:/path" (version 1) and "0::/path" (version 2).
std::optional<fs::path> FindGroup(const std::string& cgroup, const Version& version) {
  std::istringstream lines(cgroup);
  for (std::string line; std::getline(lines, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool found =
        version.controller.empty() ? controllers.empty() : IsOneOf(version.controller, controllers);
    if (found) return fs::path(line.substr(second + 1));
  }
  return std::nullopt;
}

// Lowers `memory` to what the groups from `group` up to the mounted one leave.
void Apply(const fs::path& host, const Mount& mount, const fs::path& group, const Version& version,
           HostMemory& memory) {
  const fs::path top = host / mount.at.relative_path();
  const fs::path below = group.lexically_relative(mount.root);
  // Seen from inside a container the group's path may not be below what is mounted.
  const bool outside = below.empty() || *below.begin() == "..";
  fs::path dir = outside || below == "." ? top : top / below;
  for (;; dir = dir.parent_path()) {
    const auto limit = NumberIn(dir / version.limit);
    const auto usage = NumberIn(dir / version.usage);
    if (limit && usage) {
      const auto stat = ReadFile(dir / "memory.stat");
      const Bytes droppable = stat ? Field(*stat, version.droppable).value_or(Bytes()) : Bytes();
      const Bytes used = *usage - std::min(*usage, droppable);
      memory.total = std::min(memory.total, *limit);
      memory.available = std::min(memory.available, *limit - std::min(*limit, used));
    }
    if (dir == top || !dir.string().starts_with(top.string()) || !dir.has_relative_path()) return;
  }
}

}  // namespace

Result<HostMemory> KernelHostMemory::Read() {
  ASSIGN_OR_RETURN(const std::string meminfo, ReadFile(root_ / "proc/meminfo"));
  const auto total = Field(meminfo, "MemTotal:"), available = Field(meminfo, "MemAvailable:");
  if (!total || !available) return Internal("/proc/meminfo has no MemTotal or no MemAvailable");
  HostMemory memory{*total, *available};
  const auto cgroup = ReadFile(root_ / "proc/self/cgroup");
  const auto mountinfo = ReadFile(root_ / "proc/self/mountinfo");
  if (!cgroup || !mountinfo) return memory;
  for (const Version& version : {kV1, kV2}) {
    const auto mount = FindMount(*mountinfo, version);
    const auto group = FindGroup(*cgroup, version);
    if (mount && group) Apply(root_, *mount, *group, version, memory);
  }
  return memory;
}

}  // namespace hatchery::cache
