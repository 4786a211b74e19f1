// What is on the host and no record accounts for: VMMs that a daemon started and died before it
// could note them, and the folders of VMs that are no more.
//
// Which processes are ours the driver says (Driver::FindStrays), and a folder is if it is below our
// run root and has a VM's name: what else anybody keeps there is left alone. What is found is ended
// and removed in the background. Loop thread only.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/notifier.h"
#include "base/task.h"
#include "cache/vms.h"
#include "hypervisor/driver.h"

namespace hatchery::cache {

class Strays {
 public:
  Strays(Executor executor, hypervisor::Driver& driver, Vms& vms, std::filesystem::path run_root);

  // Looks for strays among all processes, and every kLookEvery from then on for folders. What is
  // recorded must be in Vms already.
  void Start();
  // Returns when what Start() found is gone, or has withstood.
  Task<void> Swept(Deadline deadline);

  // What is still there is left to the next daemon.
  asio::awaitable<void> Stop();

 private:
  struct Found {
    std::vector<hypervisor::Stray> processes;
    std::set<std::string> folders;
  };
  Found Find(bool only_with_folders) const;
  asio::awaitable<void> Sweep();
  Task<void> End(Found found);

  Executor executor_;
  hypervisor::Driver& driver_;
  Vms& vms_;
  const std::filesystem::path run_root_;
  OneShot<bool> swept_;
  TaskScope tasks_;
};

}  // namespace hatchery::cache
