// Control groups, version 1 and 2 and none: one group for each of a number of processes, below a
// common parent, with limits. Files under /sys/fs/cgroup, no daemon in between.
//
// Under version 2 one folder is a group; under version 1 each controller has a folder of its own
// for it, and any of them may be missing. Who uses this sees a list of folders either way.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/status.h"

namespace hatchery {

struct CgroupLimits {
  Bytes memory;
  std::uint32_t pids = 0;
  std::uint32_t cpu_percent = 0;  // of one CPU: 250 is two and a half
};

// Where to look, and what to make there.
struct CgroupPlace {
  std::filesystem::path root = "/sys/fs/cgroup";
  std::string own;      // /proc/self/cgroup
  std::string setting;  // "auto": below our own group; else a group's name, from the root
  std::string parent;   // the common parent's name there
};

// Loop thread only.
class Cgroups {
 public:
  enum class Version { kV1, kV2 };

  // Makes the parent. kUnimplemented when the host has no control groups that limit anything;
  // kPermissionDenied and others, naming the file, where we may not make any. Under version 2, a
  // group that has members cannot have limited groups below it: then our own process moves from its
  // group into one below it, "daemon", if it is alone there, and kFailedPrecondition if it is not.
  static Result<Cgroups> Open(const CgroupPlace& place);

  Version version() const { return version_; }
  // "memory, pids, cpu" or what there is of them.
  std::string controllers() const;
  // The common parent's folders.
  const std::vector<std::filesystem::path>& parents() const { return parents_; }

  // Makes the group, replacing an empty one of the name; its folders. All or nothing.
  Result<std::vector<std::filesystem::path>> Create(const std::string& name,
                                                    const CgroupLimits& limits) const;
  // The names of groups that are there.
  std::vector<std::string> List() const;
  std::vector<std::filesystem::path> Folders(const std::string& name) const;
  // Whether the text of a /proc/PID/cgroup says that the process is in one of our groups.
  bool Contains(std::string_view process_cgroup) const;
  // Removes the parent if it has no groups any more.
  void RemoveParent() const;

 private:
  Version version_ = Version::kV2;
  std::vector<std::string> controllers_;        // version 1: of each parent
  std::vector<std::filesystem::path> parents_;  // version 2: one
  std::vector<std::string> paths_;              // the parents, as in /proc/PID/cgroup
};

// What a limit is for the kernel: what to write to which file of a group's folder, in this order.
struct CgroupSetting {
  std::string file, value;
  bool operator==(const CgroupSetting&) const = default;
};
// Of one controller.
std::vector<CgroupSetting> SettingsOf(Cgroups::Version version, std::string_view controller,
                                      const CgroupLimits& limits);

// What a process that has one thread enters each folder by; confine::Enter() does it. Under version
// 1 that is `tasks`, open for writing: a whole process enters by `cgroup.procs`, for which the
// kernel waits for an RCU grace period, some 10 ms in which nobody on the host can make or remove a
// group, fork or execute. Under version 2 it is the folder: a process that is made in it by
// clone3(2) spares that wait, one that enters later does not.
Result<std::vector<UniqueFd>> OpenMembers(const std::vector<std::filesystem::path>& folders);

// SIGKILL to every member. They may take a moment to be gone.
void KillMembers(const std::vector<std::filesystem::path>& folders);

// Success when they were gone. kUnavailable while one has members: try again.
Result<void> RemoveCgroup(const std::vector<std::filesystem::path>& folders);

}  // namespace hatchery
