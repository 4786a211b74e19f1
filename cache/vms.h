// The VMs that exist: hatched, leased, ended. The one place where a VM's phase changes, and where
// its record is written, always before the change has an effect outside, with the event that tells
// of it (events.h).
//
//   from \ to   | LOADED | WARMING | WARM | ASSIGNED | RELEASED | FAILED | gone
//   ------------+--------+---------+------+----------+----------+--------+------
//   (new)       |        SPAWNING or BOOTING is where a VM begins                |
//   BOOTING     |        |         |      |          |          |        |  x     a template build
//   SPAWNING    |   x    |         |      |          |          |   x    |
//   LOADED      |        |    x    |      |          |          |   x    |
//   WARMING     |        |         |  x   |          |          |   x    |
//   WARM        |        |         |      |    x     |    x     |   x    |        RELEASED: surplus
//   ASSIGNED    |        |         |      |          |    x     |   x    |
//   RELEASED    |        |         |      |          |          |        |  x
//   FAILED      |        |         |      |          |          |        |  x
//
// A VM that was assigned never goes back to WARM. Loop thread only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/notifier.h"
#include "cache/events.h"
#include "cache/kv_store.h"
#include "cache/quarantine.h"
#include "cache/records.h"
#include "cache/right_of_way.h"
#include "cache/settings.h"
#include "factory/factory.h"

namespace hatchery::cache {

using Phase = record::VmPhase;

class Grant;

// One VM. Shared by whoever works with it; its phase tells whether it may still be used.
struct VmEntry {
  VmEntry(Executor executor, record::VmRecord r) : record(std::move(r)), gone(executor) {}

  record::VmRecord record;
  std::optional<record::LeaseRecord> lease;        // while ASSIGNED
  std::optional<record::LeaseRecord> ended_lease;  // after that
  RequestId request;                               // that it was acquired by; stays after the lease
  std::shared_ptr<factory::Machine> machine;       // from WARM on, or FAILED
  std::string pending_problem;                     // see onlining.h
  std::string problem;                             // see health.h and adoption.h
  bool reaching = false;                           // it could not be spoken to: see adoption.h
  OneShot<bool> gone;                              // nothing of it is left
  std::shared_ptr<Grant> grant;  // while ASSIGNED: what the lease holds (admission.h)
  Bytes private_memory;          // when last measured; 0: not yet

  VmId id() const { return VmId(record.id()); }
  Phase phase() const { return record.phase(); }
  // Whose it is or was; empty: nobody's, or that of a caller without a tenant.
  std::string tenant() const {
    const auto& holds = lease ? lease : ended_lease;
    return holds ? holds->tenant() : std::string();
  }
  // Its guest has yet to bring online what was hot-added.
  bool pending() const { return record.pending_vcpus() > 0 || record.pending_memory_bytes() > 0; }
  // Who acquired it controls it: there is nobody in it for us to talk to.
  bool handed_over() const {
    return machine && machine->vm->state() == hypervisor::VmState::kHandedOver;
  }
};
using VmPtr = std::shared_ptr<VmEntry>;

struct HatchRequest {
  std::string template_name;
  std::shared_ptr<const tmpl::LoadedTemplate> from;
  std::uint32_t vcpus = 0;
  Bytes memory;
  std::string pool_key;  // empty: for one acquire
  // Make it unique while warming also where it is for one acquire: see factory::CloneRequest.
  bool rehearse = false;
};

class Vms {
 public:
  // `host_boot_id` marks records, since VMs die with their host.
  Vms(Executor executor, KvStore& store, Events& events, factory::Factory& factory,
      RightOfWay& right_of_way, const Settings& settings, const Clock& clock,
      std::string driver_name, std::string host_boot_id);

  // Told when a VM has ended and nothing of it is left.
  void OnGone(std::function<void(const VmEntry&)> listener) { on_gone_ = std::move(listener); }
  // Told when a VM that was warm or assigned died by itself, before it is cleaned up: of Fail().
  void OnDied(std::function<void(const VmPtr&)> listener) { on_died_ = std::move(listener); }

  // A new warm VM. On failure or cancellation nothing of it is left, or, if its VMM withstands, it
  // is FAILED and being destroyed. kUnavailable with a time to try again while the template version
  // is quarantined (quarantine.h).
  Task<VmPtr> Hatch(HatchRequest request, Deadline deadline);

  // Writes down, in one change, that `vm` (WARM) is leased; `request` if the caller gave an id. On
  // failure nothing has changed.
  Result<void> Assign(VmEntry& vm, const record::LeaseRecord& lease,
                      const std::optional<record::RequestRecord>& request);

  // Writes down what an assignment made of the VM, and what its lease says.
  Result<void> Update(VmEntry& vm);

  // Writes down, and logs, what is wrong with a VM that lives; empty: nothing any more. Its wording
  // may change from one look to the next: only that it has one now, or none, is news. If the write
  // is refused nothing has changed, and who looks again says it again.
  void SetProblem(VmEntry& vm, const std::string& problem);

  // Begins the end of a VM, in phase RELEASED or FAILED: its lease is closed in the records, then
  // the VMM is killed in the background. Does nothing for one that is ending already.
  void End(const VmPtr& vm, Phase phase, std::string_view reason);

  // The same, as FAILED, for one that was found dead or is as good as dead: tells OnDied() first.
  void Fail(const VmPtr& vm, std::string_view reason);

  // Notes a template build's VM for as long as the result lives.
  class BuildRecord {
   public:
    ~BuildRecord();
    const VmId& id() const { return id_; }

   private:
    friend class Vms;
    BuildRecord(Vms& vms, VmId id) : vms_(vms), id_(std::move(id)) {}
    Vms& vms_;
    VmId id_;
  };
  Result<std::unique_ptr<BuildRecord>> BeginBuild(const std::string& template_name);

  // Whether `id`, found on the host, is accounted for: one of these VMs, or of a build that goes
  // on, which may put more after its own.
  bool Knows(const VmId& id) const;

  // Takes in a VM of an earlier daemon, which runs: WARM or ASSIGNED; or on its way to either, for
  // End(). One that is RELEASED or FAILED is destroyed.
  VmPtr Adopt(record::VmRecord record, std::optional<record::LeaseRecord> lease,
              std::unique_ptr<factory::Machine> machine);

  Events& events() { return events_; }
  Quarantine& quarantine() { return quarantine_; }
  const Quarantine& quarantine() const { return quarantine_; }

  VmPtr Find(const VmId& id) const;  // null if there is none
  std::vector<VmPtr> List() const;
  // The one whose id follows `id`, in the ids' order; null past the last.
  VmPtr Next(const VmId& id) const;
  // How many live from this template version, those that are ending included.
  std::size_t CountOf(const std::string& digest) const;
  // How many of a pool's VMs are leased.
  std::size_t LeasedOf(const std::string& pool_key) const;
  std::size_t size() const { return vms_.size(); }

  // How many EndAll() waits for; and the one that it waits for, when nothing has happened for a
  // while.
  using Waiting = std::function<void(std::size_t left, const VmEntry* slow)>;
  // Ends every VM for which `which` is true, also those that become usable meanwhile, and waits
  // until none is left. Who makes new ones must be stopped first.
  Task<void> EndAll(std::function<bool(const VmEntry&)> which, std::string_view reason,
                    Deadline deadline, Waiting waiting = {});

  // Stops watching and waits for what runs, at most for kDestroyTry if a VMM withstands its end;
  // VMs that live stay alive.
  asio::awaitable<void> Stop();

 private:
  record::VmRecord NewRecord(const HatchRequest& request) const;
  // Clones; tells `fault` whether a failure was the template's.
  Task<VmPtr> Clone(HatchRequest request, bool& fault, Deadline deadline);
  Result<void> Enter(VmEntry& vm, Phase phase);
  void Watch(const VmPtr& vm);
  asio::awaitable<void> WaitForEnd(VmPtr vm);
  asio::awaitable<void> Destroy(VmPtr vm);
  // Commits the end of a VM, which is not to be stopped.
  void Tell(const RecordBatch& batch, record::EventRecord event);
  void Forget(const VmPtr& vm, std::string_view reason = "");

  Executor executor_;
  KvStore& store_;
  Events& events_;
  factory::Factory& factory_;
  RightOfWay& right_of_way_;
  const Settings& settings_;
  const Clock& clock_;
  std::string driver_name_;
  std::string host_boot_id_;
  Quarantine quarantine_;
  std::map<VmId, VmPtr> vms_;
  std::map<std::string, std::size_t> by_digest_;
  std::map<std::string, std::size_t> leased_;  // by pool key
  std::set<VmId> builds_;
  std::function<void(const VmEntry&)> on_gone_;
  std::function<void(const VmPtr&)> on_died_;
  Notifier changed_;  // some VM's phase
  bool stopping_ = false;
  TaskScope watchers_;
  TaskScope destroyers_;
};

// "warm", "assigned" …
std::string_view PhaseName(Phase phase);

// True if the table above has an x.
bool MayEnter(Phase from, Phase to);

std::int64_t UnixNanos(WallTime time);

}  // namespace hatchery::cache
