// Handing VMs out and taking them back: the hot path.
//
//   acquire:  validate -> same request before? -> take warm VM (or clone) -> record lease
//             -> resize, resume, personalise -> record -> reply
//   release:  record the end -> kill the VMM -> forget
//
// Loop thread only.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/slots.h"
#include "cache/admission.h"
#include "cache/catalog.h"
#include "cache/onlining.h"
#include "cache/pools.h"
#include "cache/records.h"
#include "cache/right_of_way.h"
#include "cache/settings.h"
#include "cache/vms.h"

namespace hatchery::cache {

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
};

enum class Source { kPool, kClone, kRepeat };

struct Acquired {
  VmPtr vm;
  Source source = Source::kPool;
  std::chrono::nanoseconds total{}, resize{}, personalize{};
};

class Leases {
 public:
  Leases(Executor executor, KvStore& store, factory::Factory& factory, Catalog& catalog,
         Pools& pools, Vms& vms, Admission& admission, Onlining& onlining, RightOfWay& right_of_way,
         const Settings& settings, const Clock& clock);

  // Requests that an earlier daemon served; their VMs must be in Vms already if they live.
  void Restore(const std::vector<record::RequestRecord>& requests);

  // See AcquireParams and proto/hatchery/v1/cache.proto. A VM whose guest does not confirm its new
  // identity is destroyed and the next one is used, at most kAttempts. When cancelled, the VM is
  // destroyed and the request id is free again.
  Task<Acquired> Acquire(AcquireParams params, Deadline deadline);

  // The reply to an acquire did not reach its caller: takes the VM back, unless another call with
  // the same request id was answered with it.
  void Undelivered(const VmPtr& vm);

  // Ends the lease of `id`; returns when the VM is gone. kNotFound when there is no such VM,
  // kFailedPrecondition when it is not leased.
  Task<void> Release(VmId id, Deadline deadline);

  Task<agent::ExecResult> Exec(VmId id, agent::ExecRequest request, Deadline deadline);

  // A VM's lease has ended with it, whatever the cause: remembers it for late retries.
  void OnVmGone(const VmEntry& vm);

  // Refuses new acquires from here on (kUnavailable) and waits for those that run.
  Task<void> Drain(Deadline deadline);

 private:
  struct Request {
    record::RequestRecord record;
    bool pending = true;  // its first call still runs
    // How many calls were answered with its VM, less those whose answer got lost.
    std::size_t holders = 0;
  };
  Task<std::optional<Acquired>> JoinEarlier(const AcquireParams& params, const std::string& hash,
                                            Deadline deadline);
  Task<Acquired> AcquireNew(const AcquireParams& params, const std::string& hash,
                            Deadline deadline);
  Task<Acquired> Assign(const VmPtr& vm, const AcquireParams& params, const std::string& hash,
                        std::uint32_t vcpus, Bytes memory, Deadline deadline);
  Result<VmPtr> FindLeased(const VmId& id) const;
  // A request that was not served after all: its id is free again.
  void ForgetRequest(const RequestId& id);
  void ForgetOldRequests(RecordBatch& batch);

  Executor executor_;
  KvStore& store_;
  factory::Factory& factory_;
  Catalog& catalog_;
  Pools& pools_;
  Vms& vms_;
  Admission& admission_;
  Onlining& onlining_;
  RightOfWay& right_of_way_;
  const Settings& settings_;
  const Clock& clock_;
  bool draining_ = false;
  std::size_t running_ = 0;
  std::map<RequestId, Request> requests_;
  std::deque<RequestId> ended_;  // oldest first
  Notifier changed_;             // a request or an acquire has ended
  Slots assigning_;
};

}  // namespace hatchery::cache
