// What the daemon does first: find out what became of the VMs that its predecessor wrote down.
//
// Records are read and acted upon in one turn of the loop, and what takes time goes on beside the
// service: reaching VMMs (adoption.h), destroying what was half done (vms.h), ending what nothing
// accounts for (strays.h). The daemon serves when all that is done, and after kServeAfter at the
// latest.
//
// What a crash leaves, by the last of these writes (WritePoint) that went through, and what becomes
// of it. Every record is written before its effect, which may be missing, then, or half there.
//
//   last write          | what may be there             | what the next start does
//   --------------------+-------------------------------+-----------------------------------------
//   build-begun         | a VMM, its folder, a draft    | record deleted; VMM and folder: strays.
//                       |                               | tmpl::Store removes the draft
//   build-ended         | a version without a name      | deleted
//   template-named      | name and version              | an older version goes with its last VM
//   template-forgotten  | a version without a name      | deleted when no VM lives from it
//   pool-set, -learned, | a pool that is not full       | filled
//   -refitted           |                               |
//   pool-erased         | warm VMs without a pool       | ended
//   vm-spawning         | a VMM, its folder             | record deleted; VMM and folder: strays
//   vm-loaded, -warming | a VMM, known by its process   | FAILED, destroyed
//   vm-warm             | a paused VM                   | into its pool; ended if that has enough
//   vm-assigned         | lease and request; the guest  | FAILED, destroyed; the request is
//                       | may be half unique            | forgotten: nobody had an answer to it
//   vm-updated          | the same, confirmed           | leased; a repeat of the request, whose
//                       |                               | answer may be lost, gets the same VM
//   lease-renewed,      | the lease as it then was      | goes on from there
//   -lapsed             |                               |
//   vm-released,        | a VMM that dies               | destroyed; its request is closed
//   -failed             |                               |
//   vm-forgotten        | a request that is open        | closed; VMM and folder had gone before
//   request-forgotten,  | nothing else                  | nothing
//   -closed             |                               |
//   vm-not-taken-over,  | less than before              | the same again: each is good alone, and
//   leases-swept,       |                               | what processes they leave are strays
//   requests-restored   |                               |
//   health-changed,     | nothing else                  | nothing
//   events-dropped      |                               |
//
// A VM that is on record, and whose process (pid and start time) is gone or was of another boot of
// the host, ends here: its record and lease are deleted, and its request is closed. Where that
// cannot be found out, because the host is short of something, the start fails and all stays as it
// was.
#include "base/log.h"
#include "cache/cache.h"

namespace hatchery::cache {

namespace {

// A hundred VMs take a fifth of a second; somebody who does not answer must not hold up the others.
constexpr auto kServeAfter = std::chrono::milliseconds(500);

// Whether an error of Adoption::TakeOver() tells of the VM, and not of what the host is short of.
bool IsAbout(const Error& error) {
  return error.code == Code::kNotFound || error.code == Code::kDataLoss ||
         error.code == Code::kAborted || error.code == Code::kFailedPrecondition;
}

}  // namespace

Task<void> Cache::Recover(Deadline deadline) {
  const Deadline serve = Sooner(deadline, After(kServeAfter));
  ASSIGN_OR_CO_RETURN(auto state, LoadRecords(deps_.store));
  events_.Restore(std::move(state.events));
  catalog_.Restore(state.template_names);
  pools_.Restore(state.pools);

  std::map<std::string, record::LeaseRecord> leases;
  for (auto& lease : state.leases) leases[lease.id()] = lease;
  for (auto& vm : state.vms) {
    std::optional<record::LeaseRecord> lease;
    if (const auto found = leases.find(vm.lease_id()); found != leases.end()) lease = found->second;
    auto taken = adoption_.TakeOver(vm, lease);
    // That we cannot look at it (no descriptor is left, say) does not mean that it is gone.
    if (!taken && !IsAbout(taken.error())) {
      co_return Annotate(taken.error(), "taking over VM " + vm.id());
    }
    if (taken && lease) leases.erase(lease->id());
    if (taken && *taken == Adoption::Taken::kInUse) continue;

    RecordBatch batch(WritePoint::kVmNotTakenOver);
    if (!taken) {
      log::Info({.vm = vm.id()}, "not taken over: " + ToString(taken.error()));
      batch.DeleteVm(VmId(vm.id()));
    }
    if (lease && !IsConfirmed(vm)) {
      // Its acquire was never answered: a retry is served anew.
      const auto key = RequestKey(lease->tenant(), RequestId(lease->request_id()));
      batch.DeleteRequest(key);
      std::erase_if(state.requests, [&](const auto& r) { return RequestKey(r) == key; });
    }
    if (taken) {
      CO_RETURN_IF_ERROR(batch.Commit(deps_.store));  // its end tells what becomes of it
    } else {
      CO_RETURN_IF_ERROR(events_.Commit(
          batch, events_.Gone(vm, lease, "not there any more: " + taken.error().message)));
    }
  }
  RecordBatch batch(WritePoint::kLeasesSwept);
  for (const auto& [id, lease] : leases) batch.DeleteLease(LeaseId(id));
  CO_RETURN_IF_ERROR(batch.Commit(deps_.store));
  leases_.Restore(state.requests);

  strays_.Start();
  (void)co_await strays_.Swept(serve);
  if (auto settled = co_await adoption_.Settle(serve); !settled) {
    log::Warning({}, "serving while some VMs have not answered yet");
  }
  adoption_.Start();
  co_return Result<void>();
}

}  // namespace hatchery::cache
