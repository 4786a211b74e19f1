// What guests have yet to bring online: an acquire may reply before the guest uses the CPUs and the
// memory that were hot-added for it. The VM's record then says what is pending; a task here waits
// for the guest, and brings the record up to date as it gets on.
//
// A guest that is slow or cannot do it keeps its VM, which is in use: what is missing stays
// pending, the VM's `pending_problem` says why, the log has it once, and the guest is asked again
// every so often for as long as the lease lasts. The task ends with the VM. Loop thread only.
#pragma once

#include <cstdint>

#include "base/notifier.h"
#include "base/task.h"
#include "cache/vms.h"

namespace hatchery::cache {

class Onlining {
 public:
  // `vms` outlives this.
  Onlining(Executor executor, Vms& vms);

  // Sets what is pending of `vm`, whose record has its sizes, when its guest has so much online. It
  // is the caller's to write it down.
  static void Note(VmEntry& vm, std::uint32_t online_vcpus, Bytes online_memory);

  // Sees to it that nothing of `vm` stays pending. Does nothing if nothing is.
  void Follow(const VmPtr& vm);

  // Returns when nothing of `vm` is pending any more or it has ended. kUnavailable with the reason
  // as soon as its guest is known to have a problem.
  Task<void> Wait(VmPtr vm, Deadline deadline);

  // Ends the tasks; the records keep what is pending, for the next daemon to follow.
  asio::awaitable<void> Stop();

  // VMs that are being followed.
  std::size_t size() const { return followers_.size(); }

 private:
  asio::awaitable<void> Run(VmPtr vm);
  void Progress(const VmPtr& vm, Result<agent::OnlineReport> online);

  Vms& vms_;
  Notifier changed_;  // some VM's pending or its problem
  TaskScope followers_;
};

}  // namespace hatchery::cache
