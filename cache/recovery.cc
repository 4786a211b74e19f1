// What the daemon does first: find out what became of the VMs that its predecessor wrote down.
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

#include "base/files.h"
#include "base/log.h"
#include "cache/cache.h"

namespace hatchery::cache {

namespace {

constexpr auto kAdoptTimeout = std::chrono::seconds(5);

// Whether the guest of a VM that is leased has confirmed its new identity: that is written down
// only then.
bool IsConfirmed(const record::VmRecord& record) { return !record.boot_id().empty(); }

// The processes whose command line names a file below `root`, by the VM id that follows it.
std::multimap<std::string, ProcessIdentity> ProcessesBelow(const fs::path& root) {
  std::multimap<std::string, ProcessIdentity> found;
  const std::string needle = root.string() + "/";
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto command = ReadFile(entry.path() / "cmdline");
    if (!command) continue;
    const auto at = command->find(needle);
    if (at == std::string::npos) continue;
    const auto from = at + needle.size();
    const auto id =
        command->substr(from, command->find_first_of(std::string("/,\0", 3), from) - from);
    const auto identity = IdentifyProcess(std::stoi(name));
    if (identity && identity->pid != ::getpid()) found.emplace(id, *identity);
  }
  return found;
}

}  // namespace

Task<void> Cache::Recover(Deadline deadline) {
  ASSIGN_OR_CO_RETURN(auto state, LoadRecords(deps_.store));
  catalog_.Restore(state.template_names);
  pools_.Restore(state.pools);

  std::map<std::string, record::LeaseRecord> leases;
  for (auto& lease : state.leases) leases[lease.id()] = lease;
  for (auto& vm : state.vms) {
    std::optional<record::LeaseRecord> lease;
    if (const auto found = leases.find(vm.lease_id()); found != leases.end()) {
      lease = found->second;
    }
    const std::string& id = vm.id();
    auto taken = co_await TakeOver(vm, lease, deadline);
    if (taken) {
      if (lease) leases.erase(lease->id());
      continue;
    }
    log::Info({.vm = id}, "not taken over: " + ToString(taken.error()));
    RecordBatch batch(WritePoint::kVmNotTakenOver);
    batch.DeleteVm(VmId(id));
    if (lease && !IsConfirmed(vm)) {
      // Its acquire was never answered: a retry is served anew.
      batch.DeleteRequest(RequestKey(lease->tenant(), RequestId(lease->request_id())));
      std::erase_if(state.requests, [&](const auto& request) {
        return request.request_id() == lease->request_id();
      });
    }
    CO_RETURN_IF_ERROR(batch.Commit(deps_.store));
  }
  RecordBatch batch(WritePoint::kLeasesSwept);
  for (const auto& [id, lease] : leases) batch.DeleteLease(LeaseId(id));
  CO_RETURN_IF_ERROR(batch.Commit(deps_.store));
  leases_.Restore(state.requests);
  co_return co_await SweepStrays(deadline);
}

Task<void> Cache::TakeOver(record::VmRecord record, std::optional<record::LeaseRecord> lease,
                           Deadline deadline) {
  if (record.host_boot_id() != deps_.host_boot_id) co_return NotFound("the host was rebooted");
  const bool warm = record.phase() == record::VM_PHASE_WARM;
  const bool assigned = record.phase() == record::VM_PHASE_ASSIGNED && lease;
  if (!warm && !assigned) {
    co_return Aborted("it was " + std::string(PhaseName(record.phase())));
  }
  if (assigned && !IsConfirmed(record)) {
    co_return Aborted("its guest had not confirmed to be unique when the daemon ended");
  }
  if (assigned && lease->vm_id() != record.id()) {
    co_return DataLoss("its lease is of VM " + lease->vm_id());
  }
  const Deadline at = Sooner(deadline, After(kAdoptTimeout));
  auto machine = std::make_unique<factory::Machine>();
  ASSIGN_OR_CO_RETURN(machine->vm, co_await deps_.driver.Adopt(record.handle(), at));
  // A VM is known under one id, and a lease is of one VM: or two could be given the same.
  if (machine->vm->config().id.str() != record.id()) {
    co_return DataLoss("its handle is that of VM " + machine->vm->config().id.str());
  }
  const auto state = machine->vm->state();
  const bool usable =
      warm ? state == hypervisor::VmState::kPaused
           : state == hypervisor::VmState::kRunning || state == hypervisor::VmState::kPaused;
  if (!usable) co_return Aborted("its VMM is " + std::string(hypervisor::Name(state)));
  ASSIGN_OR_CO_RETURN(machine->agent,
                      co_await deps_.connector.Connect(machine->vm->endpoints().agent, at));
  const auto vm = vms_.Adopt(std::move(record), std::move(lease), std::move(machine));
  onlining_.Follow(vm);
  log::Info({.vm = vm->record.id()}, "taken over, " + std::string(PhaseName(vm->phase())));
  if (warm && !pools_.TakeIn(vm)) {
    vms_.End(vm, record::VM_PHASE_RELEASED, "no pool wants it any more");
  }
  co_return Result<void>();
}

Task<void> Cache::SweepStrays(Deadline deadline) {
  // Every VMM of ours names its run folder on its command line; that is how it is known as ours
  // even when it died unrecorded.
  const auto root = deps_.booter.run_root();
  for (const auto& [id, identity] : ProcessesBelow(root)) {
    if (vms_.Find(VmId(id))) continue;
    auto process = Process::Adopt(deps_.executor, identity);
    if (!process) continue;
    log::Info({.vm = id}, "ending a stray VMM, pid " + std::to_string(identity.pid));
    auto ended = co_await (*process)->Kill(Sooner(deadline, After(kAdoptTimeout)));
    if (!ended) log::Error({.vm = id}, "ending a stray VMM: " + ToString(ended.error()));
  }
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(root, ignored)) {
    const std::string id = entry.path().filename();
    if (vms_.Find(VmId(id))) continue;
    if (auto removed = RemoveAll(entry.path()); !removed) {
      log::Error({.vm = id}, ToString(removed.error()));
    }
  }
  co_return Result<void>();
}

}  // namespace hatchery::cache
