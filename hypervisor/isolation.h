// How VMMs are kept apart from the host and from each other: a user id each, a control group each,
// and what they lose before they run. docs/adr/0008 says why so.
//
// It knows of no VMM in particular: a driver encloses each VM before it starts its process, writes
// what came of it (a Cell) into the VM's handle, and says when the process is gone. Loop thread
// only.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/cgroup.h"
#include "base/process.h"
#include "hypervisor/config.h"
#include "hypervisor/uids.h"

namespace hatchery::hypervisor {

struct IsolationSettings {
  std::string uids = "none";    // as [vmm] uids of hatchery.toml
  std::string cgroup = "none";  // as [vmm] cgroup
  Bytes memory_overhead = Bytes::MiB(512);
  std::uint32_t pids = 512;
  // Tells this daemon's groups and ids from another's: its state directory.
  std::string owner;
};

// What one VM has of its own.
struct Cell {
  std::optional<uid_t> uid;
  std::vector<std::filesystem::path> cgroup;  // folders
};

class Isolation {
 public:
  // Everything off.
  Isolation() = default;
  // Fails for a bad [vmm] uids only. Where groups cannot be had, it goes on without and says so in
  // the log.
  static Result<std::shared_ptr<Isolation>> Create(const IsolationSettings& settings);
  ~Isolation();
  Isolation(const Isolation&) = delete;
  Isolation& operator=(const Isolation&) = delete;

  // "own uid each (1879048192-1879113727), cgroup v1 (memory, pids, cpu)".
  std::string Describe() const;

  // A cell for a VM that is about to start; its run_dir becomes the uid's. kResourceExhausted when
  // there is no uid left.
  Result<Cell> Enclose(const VmConfig& config);
  // A VM of an earlier daemon has this cell.
  void Claim(const Cell& cell);
  // The VMM is gone: its uid is free, its group is removed.
  void Free(const Cell& cell);
  // Nobody watches the VMM any more; it may live on.
  void Abandon(const Cell& cell, ProcessIdentity process);

  // What the VMM's process is started with. `members` are the cell's groups, open to be entered,
  // which must stay open until it was started.
  struct Confined {
    std::vector<UniqueFd> members;
    Confinement confinement;
  };
  Result<Confined> Confine(const Cell& cell) const;

  // Whether VMMs may use KVM: as their uids, if they have them.
  bool MayUseKvm() const;
  // Fails with kPermissionDenied, naming `path`, the uid and what to do, if a VMM of this cell may
  // not read `fd`, which is open on it.
  Result<void> MayRead(const Cell& cell, int fd, const std::filesystem::path& path) const;

  // Whether a process is in one of our groups or has one of our uids.
  bool Vouches(pid_t pid) const;
  // Kills and removes the groups of VMs that `keep` does not know.
  void RemoveGroups(const std::function<bool(const VmId&)>& keep);
  // Removes groups that could not be removed at once, because their last process was still ending.
  void RetryRemovals();
  bool removals_pending() const { return !leaving_.empty(); }

 private:
  IsolationSettings settings_;
  std::optional<UidAllocator> uids_;
  std::string without_uids_ = "as the daemon's user";
  std::optional<Cgroups> cgroups_;
  std::string without_cgroups_ = "cgroups off";  // why, when there are none
  std::optional<gid_t> kvm_group_;               // of /dev/kvm, where that is how to get at it
  std::vector<std::vector<std::filesystem::path>> leaving_;
};

}  // namespace hatchery::hypervisor
