// Keeps the daemon in touch with VMs that it did not just make: those of an earlier daemon, and
// leased ones whose VMM or agent got lost.
//
//   a VM that is  | does not answer                          | answers
//   --------------+------------------------------------------+-----------------------------------
//   WARM          | ended, after kWarmPatience; its pool     | is in its pool, or, if that has
//                 | hatches another                          | enough at the start, ended
//   ASSIGNED      | stays leased, VmEntry::problem says why; | in use as before
//                 | tried again until it answers, ends,      |
//                 | or is released                           |
//   handed over   | nobody asks: who holds it controls it, alone; it is watched for its end
//
// A leased VM is its holder's: it is never ended because nobody could talk to it. Loop thread only.
#pragma once

#include <cstddef>
#include <optional>

#include "agent/client/client.h"
#include "base/notifier.h"
#include "base/slots.h"
#include "cache/onlining.h"
#include "cache/pools.h"
#include "cache/records.h"
#include "cache/vms.h"
#include "hypervisor/driver.h"

namespace hatchery::cache {

class Adoption {
 public:
  // What became of a recorded VM whose process lives.
  enum class Taken {
    kInUse,   // warm or leased, as it was; it is reached in the background
    kEnding,  // half made or half ended: it is being destroyed in the background
  };

  Adoption(Executor executor, hypervisor::Driver& driver, agent::Connector& connector, Vms& vms,
           Pools& pools, Onlining& onlining, std::string host_boot_id);

  // Takes a recorded VM into Vms; `lease` if it has one. An error says why there is nothing to take
  // over: its process is gone, or was never noted (kNotFound, kAborted), or the record is no VM's
  // of this driver (kDataLoss, kFailedPrecondition). Any other error tells nothing of the VM, which
  // may well live. Does not wait for anything.
  Result<Taken> TakeOver(record::VmRecord record, std::optional<record::LeaseRecord> lease);

  // Returns when every VM taken over has been reached or given up once, or at the deadline, then
  // with its error; they are gone on with.
  Task<void> Settle(Deadline deadline);

  // Begins to look after the VMs: every kLookEvery, those that have been lost are reached for.
  void Start();
  // One such look.
  void Look();

  // VMs stay as they are.
  asio::awaitable<void> Stop();

 private:
  asio::awaitable<void> KeepLooking();
  asio::awaitable<void> ReachWarm(VmPtr vm);
  asio::awaitable<void> ReachLostWarm(VmPtr vm);
  asio::awaitable<void> ReachLeased(VmPtr vm, bool first);
  Task<void> Reach(VmPtr vm, Deadline deadline);
  Task<void> ReachInTurn(VmPtr vm);
  void Tried();

  Executor executor_;
  hypervisor::Driver& driver_;
  agent::Connector& connector_;
  Vms& vms_;
  Pools& pools_;
  Onlining& onlining_;
  const std::string host_boot_id_;
  Slots first_tries_;
  std::size_t untried_ = 0;  // taken over, and the first try has not ended
  Notifier tried_;
  TaskScope tasks_;
};

}  // namespace hatchery::cache
