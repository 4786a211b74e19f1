// What has to be looked at now and then while VMs run: that what guests and QEMUs print does not
// fill the disk, and that control groups of VMMs that were still ending are gone.
//
// One timer for all VMs, and none when there are no VMs. The kernel could tell of every write
// (inotify), but that would wake this process for each line of a guest that prints much, where two
// system calls per VM every two seconds cost nothing that can be measured. What a log takes of the
// disk is so bounded by its limit and what can be printed in two seconds: under emulation a few
// MiB. While the daemon is away, nothing is.
#pragma once

#include <chrono>
#include <memory>

#include "base/bytes.h"
#include "base/task.h"
#include "hypervisor/isolation.h"
#include "hypervisor/qemu/instance.h"

namespace hatchery::hypervisor::qemu {

// Loop thread only.
class Housekeeping {
 public:
  static constexpr auto kInterval = std::chrono::seconds(2);

  Housekeeping(Executor executor, Bytes log_limit, std::shared_ptr<Isolation> isolation);
  ~Housekeeping();
  Housekeeping(const Housekeeping&) = delete;
  Housekeeping& operator=(const Housekeeping&) = delete;

  // From now until it is destroyed.
  void Add(const std::shared_ptr<Instance>& instance);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace hatchery::hypervisor::qemu
