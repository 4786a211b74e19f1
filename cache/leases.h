// Handing VMs out and taking them back: the hot path.
//
//   acquire:  validate -> same request before? -> take warm VM (or clone) -> record lease
//             -> resize, resume, personalise -> record -> reply
//   hand over: … record lease -> close agent and control channel -> record -> reply
//   release:  record the end -> kill the VMM -> forget
//
// A caller can touch its own tenant's VMs only: another's is as if it were not there. How leases
// end by themselves is lease_ends.h's business. Loop thread only.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/slots.h"
#include "cache/admission.h"
#include "cache/caller.h"
#include "cache/catalog.h"
#include "cache/lease_ends.h"
#include "cache/onlining.h"
#include "cache/pools.h"
#include "cache/records.h"
#include "cache/requests.h"
#include "cache/right_of_way.h"
#include "cache/settings.h"
#include "cache/vms.h"

namespace hatchery::cache {

// How a lease ends without being released.
struct LeaseTerm {
  enum class Kind {
    kHeld,    // it does not; where the service has a longest time to live, kTtl with that
    kTtl,     // not renewed within `ttl`
    kCaller,  // the calling process ends
  };
  Kind kind = Kind::kHeld;
  std::chrono::nanoseconds ttl{};
};

struct AcquireParams {
  RequestId request_id;       // empty: every call is a new one
  std::string template_name;  // empty: "default"
  std::optional<std::uint32_t> vcpus;
  std::optional<Bytes> memory;
  std::string sandbox_id;
  std::string hostname;  // empty: the VM's id
  // Reply before the guest has brought up what was hot-added (see onlining.h). How to wait is not
  // part of what is asked for: a repeat may differ in it.
  bool resize_in_background = false;
  // As little part of it: a repeat may differ, and what it says holds from then on.
  LeaseTerm term;
  // Do not resume the VM and make it unique: hand it over paused, for the caller to control
  // (hypervisor::Vm::HandOver). It comes from a pool of just this shape, which there must be, or is
  // cloned as one of it. Without a request id: what is handed over cannot be handed over again.
  bool hand_over = false;
  Caller caller;
};

enum class Source { kPool, kClone, kRepeat };

struct Acquired {
  VmPtr vm;
  Source source = Source::kPool;
  std::chrono::nanoseconds total{}, resize{}, personalize{};
  std::optional<hypervisor::Handover> handover;
  std::uint32_t offline_vcpus = 0;  // of a VM that is handed over: hot-added, and not online yet
};

class Leases {
 public:
  Leases(Executor executor, KvStore& store, factory::Factory& factory, Catalog& catalog,
         Pools& pools, Vms& vms, Admission& admission, Onlining& onlining, LeaseEnds& ends,
         RightOfWay& right_of_way, const Settings& settings, const Clock& clock);

  // Leases and requests of an earlier daemon; VMs that live must be in Vms already.
  void Restore(const std::vector<record::RequestRecord>& requests);

  // See AcquireParams and proto/hatchery/v1/cache.proto. A VM whose guest does not confirm its new
  // identity is destroyed and the next one is used, at most kAttempts. When cancelled, the VM is
  // destroyed and the request id is free again.
  Task<Acquired> Acquire(AcquireParams params, Deadline deadline);

  // The reply to an acquire did not reach its caller: takes the VM back, unless another call with
  // the same request id was answered with it. Weak, because what waits for this to happen is let go
  // on any thread; nothing is done for a VM that is gone.
  void Undelivered(const std::weak_ptr<VmEntry>& weak);

  // Begins the lease's time to live anew, with another one if given; also when it has lapsed
  // already. kNotFound when there is no such VM, kFailedPrecondition when it has no time to live.
  // On failure the lease is as it was.
  Result<VmPtr> Renew(const Caller& caller, const VmId& id,
                      std::optional<std::chrono::nanoseconds> ttl);

  // Ends the lease of `id`; returns when the VM is gone. kNotFound when there is no such VM,
  // kFailedPrecondition when it is not leased.
  Task<void> Release(Caller caller, VmId id, Deadline deadline);

  Task<agent::ExecResult> Exec(Caller caller, VmId id, agent::ExecRequest request,
                               Deadline deadline);

  // A VM's lease has ended with it, whatever the cause: remembers it for late retries.
  void OnVmGone(const VmEntry& vm);

  // Refuses new acquires from here on (kUnavailable) and waits for those that run.
  Task<void> Drain(Deadline deadline);

 private:
  Task<std::optional<Acquired>> JoinEarlier(const AcquireParams& params, const std::string& hash,
                                            Deadline deadline);
  Task<Acquired> AcquireNew(const AcquireParams& params, const std::string& hash,
                            Deadline deadline);
  Task<Acquired> Assign(const VmPtr& vm, const AcquireParams& params, const std::string& hash,
                        std::uint32_t vcpus, Bytes memory, Deadline deadline);
  static Result<void> NoteConfirmed(VmEntry& vm, std::string_view what);
  Task<Acquired> HandOver(const VmPtr& vm, std::uint32_t vcpus, Bytes memory, Deadline deadline);
  Result<void> RequirePool(const std::string& template_name, std::uint32_t vcpus,
                           Bytes memory) const;
  Result<VmPtr> FindLeased(const Caller& caller, const VmId& id) const;
  Result<void> SetTerm(record::LeaseRecord& lease, const LeaseTerm& term,
                       const Caller& caller) const;
  Result<void> ChangeTerm(const VmPtr& vm, const LeaseTerm& term, const Caller& caller);

  Executor executor_;
  KvStore& store_;
  factory::Factory& factory_;
  Catalog& catalog_;
  Pools& pools_;
  Vms& vms_;
  Admission& admission_;
  Onlining& onlining_;
  LeaseEnds& ends_;
  RightOfWay& right_of_way_;
  const Settings& settings_;
  const Clock& clock_;
  bool draining_ = false;
  std::size_t running_ = 0;
  Requests requests_;
  Notifier changed_;  // a request or an acquire has ended
  Slots assigning_;
};

}  // namespace hatchery::cache
