#include "cache/vms.h"

#include <algorithm>

#include "base/duration.h"
#include "base/log.h"

namespace hatchery::cache {

namespace {

// How long a VMM that withstands its end is tried to be ended, and how long at a time.
constexpr auto kDestroyDeadline = std::chrono::minutes(10);
constexpr auto kDestroyTry = std::chrono::seconds(5);
// Whoever waits for VMs to end is told the name of one of them if none has for so long.
constexpr auto kSlow = std::chrono::seconds(2);
// Of the console, for the log and for those who watch.
constexpr auto kTail = Bytes::KiB(1);
// Between two tries to wait for a VM's end, doubling from the first to the last. Waiting fails only
// if the host is short of something.
constexpr std::chrono::nanoseconds kFirstPause = std::chrono::milliseconds(100);
constexpr std::chrono::nanoseconds kLastPause = std::chrono::seconds(10);

// The write by which a VM enters `phase`.
WritePoint PointOf(Phase phase) {
  switch (phase) {
    case record::VM_PHASE_LOADED: return WritePoint::kVmLoaded;
    case record::VM_PHASE_WARMING: return WritePoint::kVmWarming;
    case record::VM_PHASE_WARM: return WritePoint::kVmWarm;
    case record::VM_PHASE_ASSIGNED: return WritePoint::kVmAssigned;
    case record::VM_PHASE_RELEASED: return WritePoint::kVmReleased;
    case record::VM_PHASE_FAILED: return WritePoint::kVmFailed;
    case record::VM_PHASE_BOOTING: return WritePoint::kBuildBegun;
    case record::VM_PHASE_SPAWNING:
    case record::VM_PHASE_UNSPECIFIED:
    case record::VmPhase_INT_MIN_SENTINEL_DO_NOT_USE_:
    case record::VmPhase_INT_MAX_SENTINEL_DO_NOT_USE_: return WritePoint::kVmSpawning;
  }
  return WritePoint::kVmSpawning;
}

// Whether a clone that failed so speaks against its template: not if its caller gave up or left it
// too little time, nor if the host is short of something.
bool IsTemplatesFault(const Error& error, bool has_own_deadline) {
  switch (error.code) {
    case Code::kCancelled:
    case Code::kResourceExhausted: return false;
    case Code::kDeadlineExceeded: return has_own_deadline;
    case Code::kUnknown:
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kAlreadyExists:
    case Code::kPermissionDenied:
    case Code::kFailedPrecondition:
    case Code::kAborted:
    case Code::kOutOfRange:
    case Code::kUnimplemented:
    case Code::kInternal:
    case Code::kUnavailable:
    case Code::kDataLoss: return true;
  }
  return true;
}

}  // namespace

std::string_view PhaseName(Phase phase) {
  switch (phase) {
    case record::VM_PHASE_SPAWNING: return "spawning";
    case record::VM_PHASE_LOADED: return "loaded";
    case record::VM_PHASE_WARMING: return "warming";
    case record::VM_PHASE_WARM: return "warm";
    case record::VM_PHASE_ASSIGNED: return "assigned";
    case record::VM_PHASE_RELEASED: return "released";
    case record::VM_PHASE_FAILED: return "failed";
    case record::VM_PHASE_BOOTING: return "booting";
    case record::VM_PHASE_UNSPECIFIED: return "unknown";
    // protobuf's own two, which keep the enum open.
    case record::VmPhase_INT_MIN_SENTINEL_DO_NOT_USE_:
    case record::VmPhase_INT_MAX_SENTINEL_DO_NOT_USE_: return "unknown";
  }
  return "unknown";
}

bool MayEnter(Phase from, Phase to) {
  switch (to) {
    case record::VM_PHASE_LOADED: return from == record::VM_PHASE_SPAWNING;
    case record::VM_PHASE_WARMING: return from == record::VM_PHASE_LOADED;
    case record::VM_PHASE_WARM: return from == record::VM_PHASE_WARMING;
    case record::VM_PHASE_ASSIGNED: return from == record::VM_PHASE_WARM;
    case record::VM_PHASE_RELEASED:
      return from == record::VM_PHASE_WARM || from == record::VM_PHASE_ASSIGNED;
    case record::VM_PHASE_FAILED:
      return from != record::VM_PHASE_RELEASED && from != record::VM_PHASE_FAILED &&
             from != record::VM_PHASE_BOOTING;
    case record::VM_PHASE_UNSPECIFIED:
    case record::VM_PHASE_SPAWNING:
    case record::VM_PHASE_BOOTING:
    case record::VmPhase_INT_MIN_SENTINEL_DO_NOT_USE_:
    case record::VmPhase_INT_MAX_SENTINEL_DO_NOT_USE_: return false;
  }
  return false;
}

std::int64_t UnixNanos(WallTime time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

Vms::Vms(Executor executor, KvStore& store, Events& events, factory::Factory& factory,
         RightOfWay& right_of_way, const Settings& settings, const Clock& clock,
         std::string driver_name, std::string host_boot_id)
    : executor_(executor),
      store_(store),
      events_(events),
      factory_(factory),
      right_of_way_(right_of_way),
      settings_(settings),
      clock_(clock),
      driver_name_(std::move(driver_name)),
      host_boot_id_(std::move(host_boot_id)),
      quarantine_(settings.health.quarantine_after),
      changed_(executor),
      watchers_(executor),
      destroyers_(executor) {}

Result<void> Vms::Enter(VmEntry& vm, Phase phase) {
  if (!MayEnter(vm.phase(), phase)) {
    return FailedPrecondition("VM " + vm.record.id() + " is " + std::string(PhaseName(vm.phase())) +
                              " and cannot become " + std::string(PhaseName(phase)));
  }
  const Phase before = vm.phase();
  vm.record.set_phase(phase);
  RecordBatch batch(PointOf(phase));
  batch.Put(vm.record);
  auto written = events_.Commit(batch, Events::Entered(vm.record, vm.lease));
  if (!written) {
    vm.record.set_phase(before);
    return written;
  }
  changed_.NotifyAll();
  return written;
}

Task<VmPtr> Vms::Hatch(HatchRequest request, Deadline deadline) {
  const std::string digest = request.from->manifest().digest.str();
  ASSIGN_OR_CO_RETURN(auto attempt,
                      quarantine_.Begin(digest, request.template_name, clock_.SinceBoot()));
  const std::string name = request.template_name;
  bool fault = false;
  auto vm = co_await Clone(std::move(request), fault, deadline);
  if (vm) {
    attempt.Succeeded();
  } else if (fault && !co_await IsCancelled()) {
    attempt.Failed(vm.error().message, clock_.SinceBoot());
    if (const auto state = quarantine_.Of(digest); state && !state->probing) {
      log::Warning({.tmpl = digest}, "no clones of '" + name + "' for " +
                                         ToWholeSeconds(state->until - clock_.SinceBoot()) +
                                         ": its last " + std::to_string(state->failures) +
                                         " failed");
    }
  }
  co_return vm;
}

record::VmRecord Vms::NewRecord(const HatchRequest& request) const {
  record::VmRecord record;
  record.set_id(NewId("vm"));
  record.set_phase(record::VM_PHASE_SPAWNING);
  record.set_driver(driver_name_);
  record.set_template_name(request.template_name);
  record.set_template_digest(request.from->manifest().digest.str());
  record.set_vcpus(request.vcpus);
  record.set_memory_bytes(request.memory.count());
  record.set_host_boot_id(host_boot_id_);
  record.set_created_unix_ns(UnixNanos(clock_.Now()));
  record.set_pool_key(request.pool_key);
  return record;
}

Task<VmPtr> Vms::Clone(HatchRequest request, bool& fault, Deadline deadline) {
  record::VmRecord record = NewRecord(request);
  RecordBatch batch(WritePoint::kVmSpawning);
  batch.Put(record);
  CO_RETURN_IF_ERROR(events_.Commit(batch, Events::Entered(record, {})));

  auto vm = std::make_shared<VmEntry>(executor_, std::move(record));
  vms_.emplace(vm->id(), vm);
  ++by_digest_[vm->record.template_digest()];
  bool recorded = true;
  auto observer = [&, this](factory::CloneStage stage,
                            const hypervisor::Vm& machine) -> Result<void> {
    if (stage == factory::CloneStage::kSpawning) return {};  // recorded above
    const bool loaded = stage == factory::CloneStage::kLoaded;
    if (loaded) vm->record.set_handle(machine.Handle());
    auto entered = Enter(*vm, loaded ? record::VM_PHASE_LOADED : record::VM_PHASE_WARMING);
    recorded = entered.has_value();
    return entered;
  };
  factory::CloneRequest clone{vm->id(), std::move(request.from), request.vcpus, request.memory,
                              request.rehearse || !vm->record.pool_key().empty()};
  const auto machine = std::make_shared<factory::Machine>();
  auto made = co_await factory_.Clone(*machine, std::move(clone), observer, deadline);
  if (!made) {
    const bool has_own_deadline = !vm->record.pool_key().empty();
    fault = recorded && IsTemplatesFault(made.error(), has_own_deadline);
    if (machine->vm) {
      // Something of it is still there: it stays on record, and is tried again.
      vm->machine = machine;
      End(vm, record::VM_PHASE_FAILED, made.error().message);
    } else {
      Forget(vm, made.error().message);
    }
    co_return std::unexpected(made.error());
  }
  vm->machine = machine;
  vm->record.set_handle(vm->machine->vm->Handle());
  if (auto warm = Enter(*vm, record::VM_PHASE_WARM); !warm) {
    End(vm, record::VM_PHASE_FAILED, warm.error().message);
    co_return std::unexpected(warm.error());
  }
  Watch(vm);
  co_return vm;
}

Result<void> Vms::Assign(VmEntry& vm, const record::LeaseRecord& lease,
                         const std::optional<record::RequestRecord>& request) {
  if (!MayEnter(vm.phase(), record::VM_PHASE_ASSIGNED)) {
    return FailedPrecondition("VM " + vm.record.id() + " is " + std::string(PhaseName(vm.phase())));
  }
  record::VmRecord assigned = vm.record;
  assigned.set_phase(record::VM_PHASE_ASSIGNED);
  assigned.set_lease_id(lease.id());
  RecordBatch batch(WritePoint::kVmAssigned);
  batch.Put(assigned);
  batch.Put(lease);
  if (request) batch.Put(*request);
  RETURN_IF_ERROR(events_.Commit(batch, Events::Entered(assigned, lease)));
  vm.record = std::move(assigned);
  vm.lease = lease;
  vm.request = RequestId(lease.request_id());
  ++leased_[vm.record.pool_key()];
  changed_.NotifyAll();
  return {};
}

Result<void> Vms::Update(VmEntry& vm) {
  vm.record.set_handle(vm.machine->vm->Handle());
  RecordBatch batch(WritePoint::kVmUpdated);
  batch.Put(vm.record);
  if (vm.lease) batch.Put(*vm.lease);
  return batch.Commit(store_);
}

void Vms::SetProblem(VmEntry& vm, const std::string& problem) {
  if (problem.empty() == vm.problem.empty()) return;
  const RecordBatch none(WritePoint::kHealthChanged);
  if (auto told = events_.Commit(none, Events::HealthChanged(vm.record, vm.lease, problem));
      !told) {
    return log::Error({.vm = vm.record.id()}, "recording its health: " + ToString(told.error()));
  }
  vm.problem = problem;
  const log::Fields whose{.vm = vm.record.id(), .request = vm.request.str()};
  if (problem.empty()) return log::Info(whose, "it is well again");
  log::Warning(whose, vm.lease ? "it stays leased: " + problem : problem);
}

void Vms::Watch(const VmPtr& vm) { watchers_.Spawn("watch " + vm->record.id(), WaitForEnd(vm)); }

asio::awaitable<void> Vms::WaitForEnd(VmPtr vm) {
  const auto machine = vm->machine;  // outlives the wait
  auto reason = co_await machine->vm->Wait(Deadline::max());
  for (auto pause = kFirstPause; !reason; pause = std::min(pause * 2, kLastPause)) {
    if (vm->gone.has_value() || co_await IsCancelled()) co_return;
    log::Error({.vm = vm->record.id()}, "watching a VM: " + ToString(reason.error()));
    (void)co_await vm->gone.Wait(After(pause));
    if (vm->gone.has_value() || co_await IsCancelled()) co_return;
    reason = co_await machine->vm->Wait(Deadline::max());
  }
  Fail(vm, std::string(hypervisor::Name(reason->kind)) + ": " + reason->detail);
}

void Vms::Fail(const VmPtr& vm, std::string_view reason) {
  const bool in_use =
      vm->phase() == record::VM_PHASE_WARM || vm->phase() == record::VM_PHASE_ASSIGNED;
  if (!in_use) return;
  if (on_died_) on_died_(vm);
  End(vm, record::VM_PHASE_FAILED, reason);
}

void Vms::End(const VmPtr& vm, Phase phase, std::string_view reason) {
  if (!MayEnter(vm->phase(), phase)) return;
  const Phase before = vm->phase();
  if (before == record::VM_PHASE_ASSIGNED) {
    const auto leased = leased_.find(vm->record.pool_key());
    if (--leased->second == 0) leased_.erase(leased);
  }
  vm->record.set_phase(phase);
  const bool failed = phase == record::VM_PHASE_FAILED;
  const std::string tail = failed && vm->machine ? vm->machine->vm->ConsoleTail(kTail) : "";
  RecordBatch batch(PointOf(phase));
  batch.Put(vm->record);
  if (!vm->record.lease_id().empty()) batch.DeleteLease(LeaseId(vm->record.lease_id()));
  Tell(batch, Events::Entered(vm->record, vm->lease, reason, tail));
  std::string line = std::string(PhaseName(before)) + " -> " + std::string(PhaseName(phase)) +
                     (reason.empty() ? "" : ": ") + std::string(reason);
  if (!tail.empty()) line += "; console: " + tail;
  log::Write(failed ? log::Level::kWarning : log::Level::kInfo,
             {.vm = vm->record.id(), .request = vm->request.str()}, line);
  if (vm->lease) vm->ended_lease = std::exchange(vm->lease, std::nullopt);
  vm->grant.reset();
  destroyers_.Spawn("destroy " + vm->record.id(), Destroy(vm));
}

void Vms::Tell(const RecordBatch& batch, record::EventRecord event) {
  if (auto written = events_.Commit(batch, event); !written) {
    // It goes all the same; should the daemon die before it can be written, the next one finds the
    // record and no process.
    log::Error({.vm = event.vm_id()}, "recording the end of a VM: " + ToString(written.error()));
    events_.Owe(batch, std::move(event));
  }
}

asio::awaitable<void> Vms::Destroy(VmPtr vm) {
  if (vm->machine) {
    co_await right_of_way_.WaitUntilFree({}, After(settings_.put_off.destroy));
    const Deadline give_up = After(kDestroyDeadline);
    auto destroyed = co_await factory_.Destroy(*vm->machine, After(kDestroyTry));
    while (!destroyed && !stopping_ && std::chrono::steady_clock::now() < give_up) {
      destroyed = co_await factory_.Destroy(*vm->machine, After(kDestroyTry));
    }
    if (!destroyed) {
      // Its record stays, so that the next daemon tries again.
      log::Error({.vm = vm->record.id()}, "destroying a VM: " + ToString(destroyed.error()));
      co_return;
    }
  }
  Forget(vm);
}

void Vms::Forget(const VmPtr& vm, std::string_view reason) {
  RecordBatch batch(WritePoint::kVmForgotten);
  batch.DeleteVm(vm->id());
  Tell(batch, events_.Gone(vm->record, vm->ended_lease, reason));
  vms_.erase(vm->id());
  const auto count = by_digest_.find(vm->record.template_digest());
  if (count != by_digest_.end() && --count->second == 0) by_digest_.erase(count);
  vm->gone.Set(true);
  changed_.NotifyAll();
  if (on_gone_) on_gone_(*vm);
}

Vms::BuildRecord::~BuildRecord() {
  vms_.builds_.erase(id_);
  RecordBatch batch(WritePoint::kBuildEnded);
  batch.DeleteVm(id_);
  if (auto written = batch.Commit(vms_.store_); !written) {
    log::Error({.vm = id_.str()}, "forgetting a build: " + ToString(written.error()));
    vms_.events_.Owe(batch);
  }
}

Result<std::unique_ptr<Vms::BuildRecord>> Vms::BeginBuild(const std::string& template_name) {
  record::VmRecord record;
  record.set_id(NewId("vm"));
  record.set_phase(record::VM_PHASE_BOOTING);
  record.set_driver(driver_name_);
  record.set_template_name(template_name);
  record.set_host_boot_id(host_boot_id_);
  record.set_created_unix_ns(UnixNanos(clock_.Now()));
  RecordBatch batch(WritePoint::kBuildBegun);
  batch.Put(record);
  RETURN_IF_ERROR(batch.Commit(store_));
  builds_.insert(VmId(record.id()));
  return std::unique_ptr<BuildRecord>(new BuildRecord(*this, VmId(record.id())));
}

bool Vms::Knows(const VmId& id) const {
  return vms_.contains(id) || std::ranges::any_of(builds_, [&](const VmId& build) {
           return id.str().starts_with(build.str());
         });
}

VmPtr Vms::Adopt(record::VmRecord record, std::optional<record::LeaseRecord> lease,
                 std::unique_ptr<factory::Machine> machine) {
  auto vm = std::make_shared<VmEntry>(executor_, std::move(record));
  vm->lease = std::move(lease);
  vm->problem = events_.ProblemOf(vm->id());
  if (vm->lease) vm->request = RequestId(vm->lease->request_id());
  vm->machine = std::move(machine);
  vms_.emplace(vm->id(), vm);
  ++by_digest_[vm->record.template_digest()];
  if (vm->phase() == record::VM_PHASE_ASSIGNED) ++leased_[vm->record.pool_key()];
  if (vm->phase() == record::VM_PHASE_RELEASED || vm->phase() == record::VM_PHASE_FAILED) {
    destroyers_.Spawn("destroy " + vm->record.id(), Destroy(vm));
  } else {
    Watch(vm);
  }
  return vm;
}

VmPtr Vms::Find(const VmId& id) const {
  const auto found = vms_.find(id);
  return found == vms_.end() ? nullptr : found->second;
}

VmPtr Vms::Next(const VmId& id) const {
  const auto next = vms_.upper_bound(id);
  return next == vms_.end() ? nullptr : next->second;
}

std::vector<VmPtr> Vms::List() const {
  std::vector<VmPtr> all;
  all.reserve(vms_.size());
  for (const auto& [id, vm] : vms_) all.push_back(vm);
  std::ranges::sort(all, {}, [](const VmPtr& vm) {
    return std::pair(vm->record.created_unix_ns(), vm->record.id());
  });
  return all;
}

std::size_t Vms::CountOf(const std::string& digest) const {
  const auto found = by_digest_.find(digest);
  return found == by_digest_.end() ? 0 : found->second;
}

std::size_t Vms::LeasedOf(const std::string& pool_key) const {
  const auto found = leased_.find(pool_key);
  return found == leased_.end() ? 0 : found->second;
}

Task<void> Vms::EndAll(std::function<bool(const VmEntry&)> which, std::string_view reason,
                       Deadline deadline, Waiting waiting) {
  std::size_t told = 0;
  for (;;) {
    // One that is still being cloned cannot be ended here: its maker does, or it becomes warm.
    for (const auto& vm : List()) {
      if (which(*vm)) End(vm, record::VM_PHASE_RELEASED, reason);
    }
    VmPtr one;
    std::size_t left = 0;
    for (const auto& vm : List()) {
      if (!which(*vm)) continue;
      one = vm;
      ++left;
    }
    if (waiting && left != told) waiting(left, nullptr);
    told = left;
    if (!one) co_return Result<void>();
    auto changed = co_await changed_.Wait(Sooner(deadline, After(kSlow)));
    if (changed) continue;
    if (changed.error().code == Code::kCancelled || std::chrono::steady_clock::now() >= deadline) {
      co_return Annotate(changed.error(), "waiting for VM " + one->record.id() + " (" +
                                              std::string(PhaseName(one->phase())) +
                                              ") to be gone");
    }
    if (waiting) waiting(left, one.get());
  }
}

asio::awaitable<void> Vms::Stop() {
  stopping_ = true;
  // In this order: a watcher whose VM has just died starts a destroyer.
  watchers_.Cancel();
  co_await watchers_.Join();
  co_await destroyers_.Join();
}

}  // namespace hatchery::cache
