// What is really there, from the kernel's own tables: processes, sockets, mounts, control groups,
// folders. Nothing here asks the daemon or uses its code for finding VMs.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace hatchery::torture {

// A process for good: its pid and when it started, in clock ticks since boot.
struct Alive {
  pid_t pid = 0;
  std::uint64_t start = 0;
  friend auto operator<=>(const Alive&, const Alive&) = default;
};

// Nothing when there is no such process, or only what is left of it until it is reaped.
std::optional<Alive> LookAt(pid_t pid);

// A VMM: a process whose command line names a folder of the state directory's vms/.
struct Vmm {
  Alive process;
  std::string vm;
};
std::vector<Vmm> FindVmms(const std::filesystem::path& state_dir);

// CLOCK_BOOTTIME in nanoseconds: the clock of all journals.
std::int64_t SinceBootNs();

// Makes the orphans of daemons that died this process's children, so that none can be overlooked.
void AdoptOrphans();
// Reaps children that have ended, but for those in `known`, which somebody else waits for.
void ReapOrphans(const std::set<pid_t>& known);

// All that a state directory's daemons should not have left when the last has stopped and the
// factory was destroyed, a line each: VMMs, other descendants of this process but for `known`,
// folders of VMs, sockets, mounts, control groups of `vms`, unfinished templates.
std::vector<std::string> FindLeftOvers(const std::filesystem::path& state_dir,
                                       const std::set<std::string>& vms,
                                       const std::set<pid_t>& known);

}  // namespace hatchery::torture
