#include "base/cgroup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <sstream>

#include "base/files.h"

namespace hatchery {

namespace {

constexpr std::array<const char*, 3> kControllers = {"memory", "pids", "cpu"};
constexpr const char* kOwnLeaf = "daemon";
constexpr std::uint64_t kPeriodUs = 100'000;

Result<void> Write(const fs::path& file, const std::string& text) {
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return ErrnoError(errno, "opening " + file.string());
  if (::write(fd.get(), text.data(), text.size()) < 0) {
    return ErrnoError(errno, "writing '" + text + "' to " + file.string());
  }
  return {};
}

Result<void> MakeGroup(const fs::path& folder) {
  if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) {
    return ErrnoError(errno, "making the control group " + folder.string());
  }
  return {};
}

std::set<std::string> Words(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::set<std::string> words;
  for (std::string word; stream >> word;) words.insert(word);
  return words;
}

// The group of a controller in the text of a /proc/PID/cgroup, "" for version 2's.
std::string GroupOf(std::string_view text, std::string_view controller) {
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::string names = line.substr(first + 1, second - first - 1);
    std::ranges::replace(names, ',', ' ');
    if (controller.empty() ? names.empty() : Words(names).contains(std::string(controller))) {
      return line.substr(second + 1);
    }
  }
  return {};
}

// A group's path below a hierarchy's root, without leading or trailing slash.
fs::path Relative(std::string_view path) {
  while (path.starts_with('/')) path.remove_prefix(1);
  while (path.ends_with('/')) path.remove_suffix(1);
  return path;
}

// Lets the groups below `group` be limited.
Result<void> Delegate(const fs::path& group) {
  ASSIGN_OR_RETURN(const std::string there, ReadFile(group / "cgroup.controllers"));
  ASSIGN_OR_RETURN(const std::string enabled, ReadFile(group / "cgroup.subtree_control"));
  const auto has = Words(there), on = Words(enabled);
  std::string missing;
  for (const char* controller : kControllers) {
    if (!has.contains(controller) || on.contains(controller)) continue;
    missing += (missing.empty() ? "+" : " +") + std::string(controller);
  }
  if (missing.empty()) return {};
  return Write(group / "cgroup.subtree_control", missing);
}

// Out of the way of Delegate(): from `group` into one below it.
Result<void> StepDown(const fs::path& group) {
  ASSIGN_OR_RETURN(const std::string members, ReadFile(group / "cgroup.procs"));
  if (Words(members) != std::set{std::to_string(::getpid())}) {
    return FailedPrecondition("others are in our control group " + group.string() +
                              "; start the daemon in one of its own, or name another");
  }
  RETURN_IF_ERROR(MakeGroup(group / kOwnLeaf));
  return Write(group / kOwnLeaf / "cgroup.procs", "0");
}

Result<fs::path> OpenV2(const CgroupPlace& place) {
  fs::path group = place.root;
  if (place.setting == "auto") {
    fs::path own = Relative(GroupOf(place.own, ""));
    // Where an earlier start, or the service manager, has put us.
    if (own.filename() == kOwnLeaf) own = own.parent_path();
    group /= own;
    if (auto done = Delegate(group); !done) {
      if (auto down = StepDown(group); !down) return std::unexpected(down.error());
      RETURN_IF_ERROR(Delegate(group));
    }
  } else {
    RETURN_IF_ERROR(Delegate(group));
    for (const auto& part : Relative(place.setting)) {
      group /= part;
      RETURN_IF_ERROR(MakeGroup(group));
      RETURN_IF_ERROR(Delegate(group));
    }
  }
  group /= place.parent;
  RETURN_IF_ERROR(MakeGroup(group));
  RETURN_IF_ERROR(Delegate(group));
  return group;
}

}  // namespace

std::vector<CgroupSetting> SettingsOf(Cgroups::Version version, std::string_view controller,
                                      const CgroupLimits& limits) {
  const auto memory = std::to_string(limits.memory.count());
  const auto period = std::to_string(kPeriodUs);
  const auto quota = std::to_string(kPeriodUs * limits.cpu_percent / 100);
  const bool v1 = version == Cgroups::Version::kV1;
  if (controller == "memory") return {{v1 ? "memory.limit_in_bytes" : "memory.max", memory}};
  if (controller == "pids") return {{"pids.max", std::to_string(limits.pids)}};
  if (v1) return {{"cpu.cfs_period_us", period}, {"cpu.cfs_quota_us", quota}};
  return {{"cpu.max", quota + " " + period}};
}

Result<Cgroups> Cgroups::Open(const CgroupPlace& place) {
  Cgroups groups;
  std::error_code ignored;
  for (const auto& part : Relative(place.setting)) {
    if (part != ".." && part != ".") continue;
    return MakeError(
        Code::kInvalidArgument,
        "'" + place.setting + "' is no control group's name; leave out " + part.string());
  }
  if (fs::exists(place.root / "cgroup.controllers", ignored)) {
    ASSIGN_OR_RETURN(const fs::path parent, OpenV2(place));
    ASSIGN_OR_RETURN(const std::string there, ReadFile(parent / "cgroup.controllers"));
    const auto has = Words(there);
    for (const char* controller : kControllers) {
      if (has.contains(controller)) groups.controllers_.emplace_back(controller);
    }
    groups.parents_ = {parent};
    groups.paths_ = {"/" + fs::relative(parent, place.root).string()};
  } else {
    groups.version_ = Version::kV1;
    for (const char* controller : kControllers) {
      const fs::path root = place.root / controller;
      if (!fs::exists(root / "cgroup.procs", ignored)) continue;
      fs::path group =
          Relative(place.setting == "auto" ? GroupOf(place.own, controller) : place.setting);
      fs::path made = root;
      for (const auto& part : group / place.parent) {
        made /= part;
        if (!fs::exists(made, ignored)) RETURN_IF_ERROR(MakeGroup(made));
      }
      groups.controllers_.emplace_back(controller);
      groups.paths_.push_back("/" + fs::relative(made, root).string());
      groups.parents_.push_back(std::move(made));
    }
  }
  if (groups.controllers_.empty()) {
    return MakeError(Code::kUnimplemented,
                     "no control groups that limit anything in " + place.root.string());
  }
  return groups;
}

std::string Cgroups::controllers() const {
  std::string text;
  for (const auto& name : controllers_) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::vector<fs::path> Cgroups::Folders(const std::string& name) const {
  std::vector<fs::path> folders;
  for (const auto& parent : parents_) folders.push_back(parent / name);
  return folders;
}

Result<std::vector<fs::path>> Cgroups::Create(const std::string& name,
                                              const CgroupLimits& limits) const {
  auto folders = Folders(name);
  const auto make = [&]() -> Result<void> {
    // What an earlier group of the name was charged is not this one's.
    RETURN_IF_ERROR(RemoveCgroup(folders));
    for (const auto& folder : folders) RETURN_IF_ERROR(MakeGroup(folder));
    for (std::size_t i = 0; i < controllers_.size(); ++i) {
      const auto& folder = version_ == Version::kV1 ? folders[i] : folders[0];
      for (const auto& [file, value] : SettingsOf(version_, controllers_[i], limits)) {
        RETURN_IF_ERROR(Write(folder / file, value));
      }
    }
    return {};
  };
  if (auto made = make(); !made) {
    (void)RemoveCgroup(folders);
    return std::unexpected(made.error());
  }
  return folders;
}

std::vector<std::string> Cgroups::List() const {
  std::set<std::string> names;
  for (const auto& parent : parents_) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(parent, ignored)) {
      if (entry.is_directory(ignored)) names.insert(entry.path().filename());
    }
  }
  return {names.begin(), names.end()};
}

bool Cgroups::Contains(std::string_view process_cgroup) const {
  for (std::size_t i = 0; i < paths_.size(); ++i) {
    const auto group = GroupOf(process_cgroup, version_ == Version::kV1 ? controllers_[i] : "");
    if (group.starts_with(paths_[i] + "/")) return true;
  }
  return false;
}

void Cgroups::RemoveParent() const {
  for (const auto& parent : parents_) (void)::rmdir(parent.c_str());
}

Result<std::vector<UniqueFd>> OpenMembers(const std::vector<fs::path>& folders) {
  std::vector<UniqueFd> opened;
  for (const auto& folder : folders) {
    std::error_code ignored;
    const auto tasks = folder / "tasks";
    const bool v1 = fs::exists(tasks, ignored);
    const auto& path = v1 ? tasks : folder;
    opened.emplace_back(::open(path.c_str(), (v1 ? O_WRONLY : O_RDONLY | O_DIRECTORY) | O_CLOEXEC));
    if (!opened.back()) return ErrnoError(errno, "opening " + path.string());
  }
  return opened;
}

void KillMembers(const std::vector<fs::path>& folders) {
  for (const auto& folder : folders) {
    if (Write(folder / "cgroup.kill", "1")) continue;
    const auto file = folder / "cgroup.procs";
    for (const auto& member : Words(ReadFile(file).value_or(""))) {
      // A member still when its pidfd is held: else its pid may be another's by now.
      const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, std::stoi(member), 0)));
      if (!pidfd || !Words(ReadFile(file).value_or("")).contains(member)) continue;
      ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
    }
  }
}

Result<void> RemoveCgroup(const std::vector<fs::path>& folders) {
  Result<void> result;
  for (const auto& folder : folders) {
    if (::rmdir(folder.c_str()) == 0 || errno == ENOENT) continue;
    if (errno == EBUSY) {
      result = Unavailable("the control group " + folder.string() + " still has members");
    } else {
      result = ErrnoError(errno, "removing the control group " + folder.string());
    }
  }
  return result;
}

}  // namespace hatchery
