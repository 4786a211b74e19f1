// Leases that end by themselves: because they were not renewed in time, or because the process that
// holds them has ended.
//
//   state  | renewed, asked again | time runs out, holder ends | grace period over | VM ends
//   -------+----------------------+----------------------------+-------------------+--------
//   living | living               | lapsed                     | -                 | gone
//   lapsed | living               | -                          | gone, VM ended    | gone
//
// A lapse is on record, and the grace period counts from when it was noticed: a client could renew
// nothing while the daemon was down. Times are those of Clock::SinceBoot(), which nobody sets; a
// holder is known by pid and start time. Loop thread only.
#pragma once

#include <chrono>
#include <compare>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/notifier.h"
#include "base/process.h"
#include "cache/records.h"
#include "cache/settings.h"
#include "cache/vms.h"

namespace hatchery::cache {

class LeaseEnds {
 public:
  using HolderKey = std::pair<pid_t, std::uint64_t>;  // pid and start time

  // All outlive this.
  LeaseEnds(Executor executor, KvStore& store, Vms& vms, const Settings& settings,
            const Clock& clock);

  // Begins to watch the lease of `vm`, or goes on with what it says now: it was made, taken over,
  // renewed, or has another holder. Does nothing for one that is held until it is released.
  void Follow(const VmPtr& vm);

  // Lapses and ends what is due. Called by itself when it is time.
  void Check();

  // No lease ends from here on.
  asio::awaitable<void> Stop();

 private:
  struct Holder {
    std::unique_ptr<Process> process;
    std::set<VmId> vms;
  };
  void FollowHolder(const VmPtr& vm);
  void Forget(const VmId& id);
  void Lapse(const VmPtr& vm);
  void Due(const VmId& id, std::chrono::nanoseconds at);
  asio::awaitable<void> KeepChecking();
  asio::awaitable<void> WaitForEnd(ProcessIdentity identity);

  Executor executor_;
  KvStore& store_;
  Vms& vms_;
  const Settings& settings_;
  const Clock& clock_;
  // When to look at which VM's lease next, both ways.
  std::set<std::pair<std::chrono::nanoseconds, VmId>> due_;
  std::map<VmId, std::chrono::nanoseconds> due_of_;
  std::map<HolderKey, Holder> holders_;
  std::map<VmId, HolderKey> holder_of_;
  Notifier sooner_;  // something is due before all else
  bool checking_ = false;
  TaskScope tasks_;
};

}  // namespace hatchery::cache
