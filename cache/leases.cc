#include "cache/leases.h"

#include <algorithm>
#include <boost/asio/post.hpp>

#include "agent/client/unreachable.h"
#include "base/log.h"
#include "base/sha256.h"

namespace hatchery::cache {

namespace {

constexpr int kAttempts = 3;
constexpr std::size_t kMaxRequestIdLength = 63;
constexpr std::size_t kMaxFreeText = 253;  // sandbox ids: as long as a DNS name

using SteadyClock = std::chrono::steady_clock;

Result<void> ValidateParams(const AcquireParams& params) {
  const auto& id = params.request_id.str();
  if (!id.empty()) RETURN_IF_ERROR(ValidateName("request_id", id));
  static_assert(kMaxRequestIdLength == 63);
  if (params.sandbox_id.size() > kMaxFreeText) {
    return InvalidArgument("sandbox_id", "is longer than 253 bytes");
  }
  for (const char c : params.sandbox_id) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return InvalidArgument("sandbox_id", "holds a control character");
    }
  }
  if (!params.hostname.empty()) RETURN_IF_ERROR(ValidateName("hostname", params.hostname));
  if (params.vcpus == 0u) return InvalidArgument("vcpus", "must be at least 1");
  if (params.hand_over && !id.empty()) {
    return InvalidArgument("request_id", "cannot be repeated for a VM that is handed over");
  }
  return {};
}

std::string HashOf(const AcquireParams& params) {
  std::string text;
  auto add = [&](const std::string& part) { text += std::to_string(part.size()) + ":" + part; };
  add(params.template_name);
  add(params.vcpus ? std::to_string(*params.vcpus) : "-");
  add(params.memory ? std::to_string(params.memory->count()) : "-");
  add(params.sandbox_id);
  add(params.hostname);
  return Sha256Of(text);
}

}  // namespace

Leases::Leases(Executor executor, KvStore& store, factory::Factory& factory, Catalog& catalog,
               Pools& pools, Vms& vms, Admission& admission, Onlining& onlining, LeaseEnds& ends,
               RightOfWay& right_of_way, const Settings& settings, const Clock& clock)
    : executor_(executor),
      store_(store),
      factory_(factory),
      catalog_(catalog),
      pools_(pools),
      vms_(vms),
      admission_(admission),
      onlining_(onlining),
      ends_(ends),
      right_of_way_(right_of_way),
      settings_(settings),
      clock_(clock),
      requests_(store, vms, clock),
      changed_(executor),
      assigning_(executor, settings.parallel_acquires) {}

void Leases::Restore(const std::vector<record::RequestRecord>& requests) {
  requests_.Restore(requests);
  for (const auto& vm : vms_.List()) ends_.Follow(vm);
}

Result<void> Leases::SetTerm(record::LeaseRecord& lease, const LeaseTerm& term,
                             const Caller& caller) const {
  const auto longest = settings_.longest_ttl;
  LeaseTerm granted = term;
  if (term.kind == LeaseTerm::Kind::kHeld && longest.count() > 0) {
    granted = {LeaseTerm::Kind::kTtl, longest};
  }
  record::LeaseRecord changed = lease;
  changed.clear_ttl_ns();
  changed.clear_expires_boottime_ns();
  changed.clear_holder_pid();
  changed.clear_holder_start_ticks();
  changed.clear_lapsed_boottime_ns();
  switch (granted.kind) {
    case LeaseTerm::Kind::kHeld: changed.set_term(record::LEASE_TERM_HELD); break;
    case LeaseTerm::Kind::kTtl:
      if (granted.ttl.count() <= 0) return InvalidArgument("ttl", "must be more than 0");
      if (longest.count() > 0 && granted.ttl > longest) {
        return InvalidArgument(
            "ttl", "is more than the service's longest, " +
                       std::to_string(std::chrono::floor<std::chrono::seconds>(longest).count()) +
                       " s; ask for less and renew the lease");
      }
      changed.set_term(record::LEASE_TERM_TTL);
      changed.set_ttl_ns(granted.ttl.count());
      changed.set_expires_boottime_ns((clock_.SinceBoot() + granted.ttl).count());
      break;
    case LeaseTerm::Kind::kCaller:
      if (!caller.process) {
        return FailedPrecondition(
            "a lease cannot be bound to the calling process, which is not known: it is not on this "
            "host, or has ended; ask for a time to live instead");
      }
      changed.set_term(record::LEASE_TERM_CALLER);
      changed.set_holder_pid(caller.process->pid);
      changed.set_holder_start_ticks(caller.process->start_ticks);
      break;
  }
  lease = std::move(changed);
  return {};
}

Result<void> Leases::ChangeTerm(const VmPtr& vm, const LeaseTerm& term, const Caller& caller) {
  record::LeaseRecord lease = *vm->lease;
  RETURN_IF_ERROR(SetTerm(lease, term, caller));
  const bool still_held =
      lease.term() == record::LEASE_TERM_HELD && vm->lease->term() == record::LEASE_TERM_HELD;
  if (still_held) return {};
  RecordBatch batch(WritePoint::kLeaseRenewed);
  batch.Put(lease);
  RETURN_IF_ERROR(batch.Commit(store_));
  vm->lease = std::move(lease);
  ends_.Follow(vm);
  return {};
}

Task<Acquired> Leases::Acquire(AcquireParams params, Deadline deadline) {
  const auto start = SteadyClock::now();
  if (draining_) co_return Unavailable("the service is shutting down; try another host");
  CO_RETURN_IF_ERROR(ValidateParams(params));
  ASSIGN_OR_CO_RETURN(params.template_name, TemplateNameOrDefault(params.template_name));
  ASSIGN_OR_CO_RETURN(const auto place, admission_.Enter());
  ++running_;
  struct Running {
    Leases& leases;
    ~Running() {
      --leases.running_;
      leases.changed_.NotifyAll();
    }
  } running{*this};

  const bool has_id = !params.request_id.empty();
  const std::string key = RequestKey(params.caller.tenant, params.request_id);
  const std::string hash = has_id ? HashOf(params) : std::string();
  if (has_id) {
    ASSIGN_OR_CO_RETURN(auto earlier, co_await JoinEarlier(params, hash, deadline));
    if (earlier) {
      earlier->total = SteadyClock::now() - start;
      co_return *std::move(earlier);
    }
    requests_.Begin(key, hash);
  }
  auto acquired = co_await AcquireNew(params, hash, deadline);
  if (acquired && co_await IsCancelled()) {
    vms_.End(acquired->vm, record::VM_PHASE_RELEASED, "its caller went away during the acquire");
    acquired = Cancelled("cancelled");
  }
  if (has_id) {
    // Free again if it failed: a retry is served anew.
    if (acquired) {
      requests_.Serve(key);
    } else {
      requests_.Forget(key);
    }
  }
  if (!acquired) {
    log::Info({.request = params.request_id.str()},
              "acquire failed: " + ToString(acquired.error()));
    co_return acquired;
  }
  acquired->total = SteadyClock::now() - start;
  // In a later turn of the loop: whoever reads the log need not be woken before the caller.
  asio::post(executor_, [vm = acquired->vm, request = params.request_id,
                         sandbox = std::move(params.sandbox_id), total = acquired->total] {
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(total).count();
    log::Info({.vm = vm->record.id(), .request = request.str()},
              "acquired for '" + sandbox + "' in " + std::to_string(us) + " us");
  });
  co_return acquired;
}

Task<std::optional<Acquired>> Leases::JoinEarlier(const AcquireParams& params,
                                                  const std::string& hash, Deadline deadline) {
  for (;;) {
    const auto* const request = requests_.Find(RequestKey(params.caller.tenant, params.request_id));
    if (!request) co_return std::optional<Acquired>();
    const std::string& id = params.request_id.str();
    if (request->record.request_sha256() != hash) {
      co_return AlreadyExists("request_id '" + id +
                              "' was used with other parameters; choose a new one");
    }
    if (request->pending) {
      CO_RETURN_IF_ERROR(co_await changed_.Wait(deadline));
      continue;
    }
    const auto vm = vms_.Find(VmId(request->record.vm_id()));
    if (!vm || !vm->lease) {
      const auto why = vms_.events().EndOf(VmId(request->record.vm_id()));
      co_return FailedPrecondition("request_id '" + id + "' was served with VM " +
                                   request->record.vm_id() + ", whose lease has ended" +
                                   (why ? " (" + *why + ")" : "") + "; choose a new request_id");
    }
    if (!params.resize_in_background && vm->pending()) {
      CO_RETURN_IF_ERROR(co_await onlining_.Wait(vm, deadline));
      continue;  // it may have ended meanwhile
    }
    CO_RETURN_IF_ERROR(ChangeTerm(vm, params.term, params.caller));
    ++requests_.Find(RequestKey(params.caller.tenant, params.request_id))->holders;
    co_return Acquired{vm, Source::kRepeat};
  }
}

Task<Acquired> Leases::AcquireNew(const AcquireParams& params, const std::string& hash,
                                  Deadline deadline) {
  for (int attempt = 1;; ++attempt) {
    // Anew for each attempt: meanwhile it may have been deleted, or have a new version.
    // A warm VM needs no template: after a restart, none may be loaded yet.
    ASSIGN_OR_CO_RETURN(const auto manifest, catalog_.CurrentManifest(params.template_name));
    const auto& shape = manifest->shape;
    const auto vcpus = params.vcpus.value_or(shape.vcpus);
    const auto memory = params.memory.value_or(shape.memory);
    CO_RETURN_IF_ERROR(CheckShape(shape, vcpus, memory));
    if (params.hand_over) CO_RETURN_IF_ERROR(RequirePool(params.template_name, vcpus, memory));
    ASSIGN_OR_CO_RETURN(auto grant,
                        co_await admission_.Admit(params.caller.tenant, vcpus, memory, deadline));
    VmPtr vm = pools_.Take(params.template_name, *manifest, vcpus, memory);
    const Source source = vm ? Source::kPool : Source::kClone;
    std::optional<RightOfWay::Acquire> first;
    if (vm) first.emplace(right_of_way_);  // a clone is no better than a refill
    if (!vm) {
      ASSIGN_OR_CO_RETURN(const auto clone, co_await admission_.AdmitClone(deadline));
      ASSIGN_OR_CO_RETURN(const auto from,
                          co_await catalog_.Current(params.template_name, deadline));
      // What is handed over is as it will be; the others are resized when they are assigned.
      const auto& own = from->manifest().shape;  // it may have another version by now
      HatchRequest hatch{params.template_name,
                         from,
                         params.hand_over ? vcpus : own.vcpus,
                         params.hand_over ? memory : own.memory,
                         "",
                         params.hand_over};
      ASSIGN_OR_CO_RETURN(vm, co_await vms_.Hatch(std::move(hatch), deadline));
    }
    auto acquired = co_await Assign(vm, params, hash, vcpus, memory, deadline);
    pools_.Refill(vm->record.pool_key());
    if (acquired) {
      Admission::Give(*vm, std::move(grant));
      acquired->source = source;
      co_return acquired;
    }
    // Still warm: its lease could not even be written down, and nothing has touched the guest.
    if (vm->phase() == record::VM_PHASE_WARM && pools_.TakeIn(vm)) co_return acquired;
    vms_.End(vm, record::VM_PHASE_FAILED, "could not be assigned: " + acquired.error().message);
    const bool hopeless = acquired.error().code == Code::kCancelled ||
                          acquired.error().code == Code::kResourceExhausted ||
                          SteadyClock::now() >= deadline || co_await IsCancelled();
    if (hopeless || attempt == kAttempts) co_return acquired;
  }
}

Task<Acquired> Leases::Assign(const VmPtr& vm, const AcquireParams& params, const std::string& hash,
                              std::uint32_t vcpus, Bytes memory, Deadline deadline) {
  const auto machine = vm->machine;
  const bool resized = vcpus > machine->vm->vcpus() || memory > machine->vm->memory();
  // Guests that all run at once get in each other's way: each has its ticks to see to, and the last
  // of a burst would come three times as late. One that is resized mostly waits for its devices.
  std::optional<Slots::Slot> slot;
  if (!resized) {
    ASSIGN_OR_CO_RETURN(Slots::Slot taken, co_await assigning_.Take(deadline));
    slot.emplace(std::move(taken));
  }

  record::LeaseRecord lease;
  CO_RETURN_IF_ERROR(SetTerm(lease, params.term, params.caller));
  lease.set_id(NewId("lease"));
  lease.set_vm_id(vm->record.id());
  lease.set_sandbox_id(params.sandbox_id);
  lease.set_request_id(params.request_id.str());
  lease.set_tenant(params.caller.tenant);
  lease.set_created_unix_ns(UnixNanos(clock_.Now()));
  std::optional<record::RequestRecord> request;
  if (!params.request_id.empty()) {
    request.emplace();
    request->set_request_id(params.request_id.str());
    request->set_vm_id(vm->record.id());
    request->set_lease_id(lease.id());
    request->set_request_sha256(hash);
    request->set_created_unix_ns(lease.created_unix_ns());
    request->set_tenant(params.caller.tenant);
  }
  CO_RETURN_IF_ERROR(vms_.Assign(*vm, lease, request));
  if (request) {
    const std::string key = RequestKey(*request);
    requests_.Choose(key, *std::move(request));
  }

  if (params.hand_over) co_return co_await HandOver(vm, vcpus, memory, deadline);

  factory::Assignment assignment;
  assignment.vcpus = vcpus;
  assignment.memory = memory;
  assignment.hostname = params.hostname.empty() ? vm->record.id() : params.hostname;
  assignment.machine_id = factory::NewMachineId();
  vm->record.set_hostname(assignment.hostname);
  vm->record.set_machine_id(assignment.machine_id);
  assignment.await_resize = !resized || !params.resize_in_background;
  const Deadline by = resized ? deadline : Sooner(deadline, After(settings_.personalize_timeout));
  ASSIGN_OR_CO_RETURN(const auto assigned,
                      co_await factory_.Assign(*machine, std::move(assignment), by));
  CO_RETURN_IF_ERROR(NoteConfirmed(*vm, "assigned"));
  vm->record.set_boot_id(assigned.report.boot_id);
  vm->record.set_foreign_agent(assigned.report.foreign);
  if (assigned.report.foreign) {
    vm->record.clear_hostname();
    vm->record.clear_machine_id();
  }
  onlining_.Note(*vm, assigned.report.online_vcpus, assigned.report.online_memory);
  // Its time begins now: bringing up what was added may have taken seconds.
  CO_RETURN_IF_ERROR(SetTerm(*vm->lease, params.term, params.caller));
  CO_RETURN_IF_ERROR(vms_.Update(*vm));
  ends_.Follow(vm);
  onlining_.Follow(vm);
  Acquired acquired;
  acquired.vm = vm;
  acquired.resize = assigned.resize;
  acquired.personalize = assigned.personalize;
  co_return acquired;
}

Result<void> Leases::RequirePool(const std::string& template_name, std::uint32_t vcpus,
                                 Bytes memory) const {
  for (const auto& pool : pools_.List()) {
    if (pool.template_name == template_name && pool.vcpus == vcpus && pool.memory == memory &&
        pool.target > 0) {
      return {};
    }
  }
  const std::string sizes = std::to_string(vcpus) + " vCPUs and " + ToString(memory);
  return FailedPrecondition("template '" + template_name + "' has no pool of VMs with " + sizes +
                            " to hand over; make one with `hatchery pool set`");
}

// What an assignment made of a VM, for its record, unless it died, or was ended, while we waited.
Result<void> Leases::NoteConfirmed(VmEntry& vm, std::string_view what) {
  if (vm.phase() != record::VM_PHASE_ASSIGNED) {
    return Unavailable("VM " + vm.record.id() + " ended while it was being " + std::string(what));
  }
  vm.record.set_vcpus(vm.machine->vm->vcpus());
  vm.record.set_memory_bytes(vm.machine->vm->memory().count());
  vm.record.set_confirmed(true);
  return {};
}

// What it does not do, its new controller must: resume the VM, and tell its guest new random seed
// and time.
Task<Acquired> Leases::HandOver(const VmPtr& vm, std::uint32_t vcpus, Bytes memory,
                                Deadline deadline) {
  const auto machine = vm->machine;
  const std::uint32_t online = machine->vm->vcpus();
  CO_RETURN_IF_ERROR(co_await factory_.Resize(*machine->vm, vcpus, memory, deadline));
  // The agent's socket serves one connection at a time, from here on the new controller's.
  machine->agent = agent::MakeUnreachableClient("the VM was handed over to who acquired it");
  Acquired acquired;
  ASSIGN_OR_CO_RETURN(acquired.handover, co_await machine->vm->HandOver(deadline));
  CO_RETURN_IF_ERROR(NoteConfirmed(*vm, "handed over"));
  CO_RETURN_IF_ERROR(vms_.Update(*vm));
  ends_.Follow(vm);
  acquired.vm = vm;
  acquired.offline_vcpus = machine->vm->vcpus() - online;
  co_return acquired;
}

void Leases::Undelivered(const std::weak_ptr<VmEntry>& weak) {
  const VmPtr vm = weak.lock();
  if (!vm || !vm->lease) return;
  const std::string key = RequestKey(vm->tenant(), vm->request);
  // A retry may have got the VM meanwhile: then it is in use.
  auto* const request = vm->request.empty() ? nullptr : requests_.Find(key);
  if (request && --request->holders > 0) return;
  vms_.End(vm, record::VM_PHASE_RELEASED, "its caller went away before the reply");
  if (request) requests_.Forget(key);
}

Result<VmPtr> Leases::FindLeased(const Caller& caller, const VmId& id) const {
  RETURN_IF_ERROR(ValidateName("vm_id", id.str()));
  auto vm = vms_.Find(id);
  if (!vm || !caller.MaySee(vm->tenant())) return NotFound("no VM '" + id.str() + "'");
  if (vm->phase() != record::VM_PHASE_ASSIGNED) {
    return FailedPrecondition("VM " + id.str() + " is " + std::string(PhaseName(vm->phase())) +
                              ", not leased");
  }
  return vm;
}

Result<VmPtr> Leases::Renew(const Caller& caller, const VmId& id,
                            std::optional<std::chrono::nanoseconds> ttl) {
  ASSIGN_OR_RETURN(auto vm, FindLeased(caller, id));
  if (vm->lease->term() != record::LEASE_TERM_TTL) {
    return FailedPrecondition("the lease of VM " + id.str() +
                              " has no time to live that could be renewed: it is " +
                              (vm->lease->term() == record::LEASE_TERM_CALLER
                                   ? "bound to process " + std::to_string(vm->lease->holder_pid())
                                   : std::string("held until it is released")));
  }
  const auto before = std::chrono::nanoseconds(vm->lease->ttl_ns());
  RETURN_IF_ERROR(ChangeTerm(vm, {LeaseTerm::Kind::kTtl, ttl.value_or(before)}, caller));
  return vm;
}

Task<void> Leases::Release(Caller caller, VmId id, Deadline deadline) {
  CO_RETURN_IF_ERROR(ValidateName("vm_id", id.str()));
  auto known = vms_.Find(id);
  if (known && !caller.MaySee(known->tenant())) known = nullptr;
  // Ending already: a repeated release waits for the same end.
  const bool ending = known && (known->phase() == record::VM_PHASE_RELEASED ||
                                known->phase() == record::VM_PHASE_FAILED);
  if (!ending) {
    ASSIGN_OR_CO_RETURN(const auto vm, FindLeased(caller, id));
    vms_.End(vm, record::VM_PHASE_RELEASED, "released");
  }
  auto gone = co_await known->gone.Wait(deadline);
  if (!gone) co_return Annotate(gone.error(), "VM " + id.str() + " is being destroyed");
  co_return Result<void>();
}

Task<agent::ExecResult> Leases::Exec(Caller caller, VmId id, agent::ExecRequest request,
                                     Deadline deadline) {
  ASSIGN_OR_CO_RETURN(const auto vm, FindLeased(caller, id));
  if (vm->handed_over()) {
    co_return FailedPrecondition("VM " + id.str() + " was handed over to process " +
                                 std::to_string(vm->lease->holder_pid()) + ", which controls it");
  }
  const auto machine = vm->machine;  // outlives the call, whatever happens to the VM
  auto result = co_await machine->agent->Exec(request, deadline);
  if (!result) co_return Annotate(result.error(), "VM " + id.str());
  co_return result;
}

void Leases::OnVmGone(const VmEntry& vm) {
  changed_.NotifyAll();
  requests_.OnVmGone(vm);
}

Task<void> Leases::Drain(Deadline deadline) {
  draining_ = true;
  while (running_ > 0) CO_RETURN_IF_ERROR(co_await changed_.Wait(deadline));
  co_return Result<void>();
}

}  // namespace hatchery::cache
