// Looks at the VMs that are in use, every so often: does the guest's agent answer, and is the VMM
// in a state to be worked with? (That a VMM or a guest has ended is not looked for but told: Vms.)
//
// A leased VM whose agent misses two answers in a row gets a problem, which those who watch are
// told, as they are when it answers again; one that is silent for longer than the operator allows
// is ended. A warm VM whose VMM has failed is ended, so that its pool makes another. Rounds take
// `agent_interval`, over which the VMs are spread. Loop thread only.
#pragma once

#include <map>
#include <set>
#include <string>

#include "base/notifier.h"
#include "base/task.h"
#include "cache/settings.h"
#include "cache/vms.h"

namespace hatchery::cache {

class HealthChecks {
 public:
  // `vms` outlives this.
  HealthChecks(Executor executor, Vms& vms, const Settings& settings);

  // Nothing is looked at before, nor where the settings say never.
  void Start();
  asio::awaitable<void> Stop();

 private:
  struct Silence {
    int missed = 0;  // in a row
    Deadline since;  // when the first of them was asked
  };
  asio::awaitable<void> Run();
  asio::awaitable<void> Look(VmPtr vm);
  void Judge(const VmPtr& vm, const Result<void>& answer, Deadline asked);

  Vms& vms_;
  const Settings& settings_;
  std::map<VmId, Silence> silent_;  // VMs that missed the last answer
  std::set<VmId> asked_;            // that have yet to answer
  TaskScope rounds_;
  TaskScope looks_;
};

}  // namespace hatchery::cache
