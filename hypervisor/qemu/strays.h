// Which processes are VMMs of ours, by what the host says of them: for those that no record names.
#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "hypervisor/driver.h"

namespace hatchery::hypervisor::qemu {

struct StraySearch {
  std::filesystem::path proc;      // "/proc"
  std::filesystem::path program;   // the VMM's
  std::filesystem::path run_root;  // the parent of VMs' run folders
  // Says of a process that does not run `program` (any more: it may have been set to another, or
  // be a script that started one) that it is ours all the same. May be empty.
  std::function<bool(pid_t)> vouch = {};
};

// The processes that run the program, or that `vouch` vouches for, and have one of our command
// lines (command_line.h): they begin with -name and name a folder of `run_root`. What an operator
// runs on a VM's files (tail, gdb, a shell) has not; nor have we.
std::vector<Stray> FindVmms(const StraySearch& search);

}  // namespace hatchery::hypervisor::qemu
