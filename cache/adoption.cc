#include "cache/adoption.h"

#include <algorithm>

#include "agent/client/unreachable.h"
#include "base/log.h"

namespace hatchery::cache {

namespace {

// VMMs that are spoken to at once when the daemon starts. Each takes five short questions; more at
// once only make all of them later.
constexpr std::size_t kAtOnce = 16;
// How long a warm VM may take to answer, from its turn on: a healthy one takes 2 ms, and a new one
// 200.
constexpr std::chrono::nanoseconds kWarmPatience = std::chrono::seconds(2);
// How long a try to reach a leased one takes. The first is short, for what is wrong to be said
// soon; later ones wait at the VMM's door, to be there when it comes back.
constexpr std::chrono::nanoseconds kFirstTry = std::chrono::seconds(1);
constexpr std::chrono::nanoseconds kLaterTry = std::chrono::seconds(30);
// Pauses between them, doubling from the first to the last.
constexpr std::chrono::nanoseconds kFirstPause = std::chrono::milliseconds(100);
constexpr std::chrono::nanoseconds kLastPause = std::chrono::seconds(10);
constexpr auto kLookEvery = std::chrono::seconds(1);

bool IsLost(const VmEntry& vm) {
  if (!vm.machine || vm.handed_over()) return false;
  return !vm.machine->vm->reachable() || !vm.machine->agent->usable();
}

}  // namespace

Adoption::Adoption(Executor executor, hypervisor::Driver& driver, agent::Connector& connector,
                   Vms& vms, Pools& pools, Onlining& onlining, std::string host_boot_id)
    : executor_(executor),
      driver_(driver),
      connector_(connector),
      vms_(vms),
      pools_(pools),
      onlining_(onlining),
      host_boot_id_(std::move(host_boot_id)),
      first_tries_(executor, kAtOnce),
      tried_(executor),
      tasks_(executor) {}

Result<Adoption::Taken> Adoption::TakeOver(record::VmRecord record,
                                           std::optional<record::LeaseRecord> lease) {
  const Phase phase = record.phase();
  const std::string was = "it was " + std::string(PhaseName(phase)) + " when the daemon ended";
  if (record.host_boot_id() != host_boot_id_) return NotFound("the host was rebooted");
  // A VM is known under one id, and a lease is of one VM: or two could be given the same.
  if (lease && lease->vm_id() != record.id()) {
    return DataLoss("its lease is of VM " + lease->vm_id());
  }
  // Before a clone has loaded its state, and for a template's build, no process is on record: the
  // sweep of strays ends it.
  if (record.handle().empty()) return Aborted(was);
  ASSIGN_OR_RETURN(auto found, driver_.Find(record.handle()));
  if (found->config().id.str() != record.id()) {
    return DataLoss("its handle is that of VM " + found->config().id.str());
  }
  auto machine = std::make_unique<factory::Machine>();
  machine->vm = std::move(found);
  machine->agent = agent::MakeUnreachableClient("its VMM has not answered this daemon yet");

  const bool leased = phase == record::VM_PHASE_ASSIGNED && lease && IsConfirmed(record);
  const auto vm = vms_.Adopt(std::move(record), std::move(lease), std::move(machine));
  if (phase != record::VM_PHASE_WARM && !leased) {
    vms_.End(vm, record::VM_PHASE_FAILED,
             phase == record::VM_PHASE_ASSIGNED
                 ? "its guest had not confirmed to be unique when the daemon ended"
                 : was);
    return Taken::kEnding;
  }
  if (vm->handed_over()) {
    log::Info({.vm = vm->record.id()}, "taken over, handed over to who holds it");
    return Taken::kInUse;
  }
  ++untried_;
  vm->reaching = true;
  tasks_.Spawn("reach " + vm->record.id(),
               leased ? ReachLeased(vm, /*first=*/true) : ReachWarm(vm));
  return Taken::kInUse;
}

Task<void> Adoption::Settle(Deadline deadline) {
  while (untried_ > 0) CO_RETURN_IF_ERROR(co_await tried_.Wait(deadline));
  co_return Result<void>();
}

void Adoption::Tried() {
  --untried_;
  tried_.NotifyAll();
}

Task<void> Adoption::Reach(VmPtr vm, Deadline deadline) {
  const auto machine = vm->machine;
  if (!machine->vm->reachable()) {
    auto reached = co_await machine->vm->Reconnect(deadline);
    if (!reached) co_return Annotate(reached.error(), "its VMM cannot be reached");
  }
  if (!machine->agent->usable()) {
    auto agent = co_await connector_.Connect(machine->vm->endpoints().agent, deadline);
    if (!agent) co_return Annotate(agent.error(), "its agent cannot be reached");
    machine->agent = *std::move(agent);
  }
  // A warm VM's guest stands still.
  if (vm->phase() == record::VM_PHASE_WARM) co_return Result<void>();
  auto answers = co_await machine->agent->Check(deadline);
  if (!answers) co_return Annotate(answers.error(), "its agent cannot be reached");
  co_return Result<void>();
}

Task<void> Adoption::ReachInTurn(VmPtr vm) {
  ASSIGN_OR_CO_RETURN(const Slots::Slot turn, co_await first_tries_.Take(Deadline::max()));
  const bool leased = vm->phase() == record::VM_PHASE_ASSIGNED;
  co_return co_await Reach(vm, After(leased ? kFirstTry : kWarmPatience));
}

asio::awaitable<void> Adoption::ReachWarm(VmPtr vm) {
  auto reached = co_await ReachInTurn(vm);
  Tried();
  vm->reaching = false;
  if (co_await IsCancelled() || vm->phase() != record::VM_PHASE_WARM) co_return;
  const auto state = vm->machine->vm->state();
  if (reached && state != hypervisor::VmState::kPaused) {
    reached = Aborted("its VMM is " + std::string(hypervisor::Name(state)));
  }
  if (!reached) {
    vms_.End(vm, record::VM_PHASE_FAILED, "not taken over: " + reached.error().message);
  } else if (!pools_.TakeIn(vm)) {
    vms_.End(vm, record::VM_PHASE_RELEASED, "no pool wants it any more");
  } else {
    log::Info({.vm = vm->record.id()}, "taken over, warm");
  }
}

// It may be in its pool, or an acquire may be about to use it: it is left where it is.
asio::awaitable<void> Adoption::ReachLostWarm(VmPtr vm) {
  auto reached = co_await Reach(vm, After(kWarmPatience));
  vm->reaching = false;
  if (reached || co_await IsCancelled() || vm->phase() != record::VM_PHASE_WARM) co_return;
  pools_.Remove(vm);
  vms_.End(vm, record::VM_PHASE_FAILED, reached.error().message);
}

asio::awaitable<void> Adoption::ReachLeased(VmPtr vm, bool first) {
  auto reached = co_await (first ? ReachInTurn(vm) : Reach(vm, After(kFirstTry)));
  if (first) Tried();
  auto over = [&]() -> asio::awaitable<bool> {
    co_return co_await IsCancelled() || vm->phase() != record::VM_PHASE_ASSIGNED;
  };
  for (auto pause = kFirstPause; !reached && !co_await over();
       pause = std::min(pause * 2, kLastPause)) {
    vms_.SetProblem(*vm, reached.error().message);
    (void)co_await vm->gone.Wait(After(pause));
    if (co_await over()) break;
    reached = co_await Reach(vm, After(kLaterTry));
  }
  vm->reaching = false;
  if (!reached || co_await over()) co_return;
  vms_.SetProblem(*vm, "");
  if (!first) co_return;
  log::Info({.vm = vm->record.id()}, "taken over, assigned");
  onlining_.Follow(vm);
}

void Adoption::Start() { tasks_.Spawn("look after VMs", KeepLooking()); }

asio::awaitable<void> Adoption::KeepLooking() {
  while (co_await SleepFor(kLookEvery)) Look();
}

void Adoption::Look() {
  for (const auto& vm : vms_.List()) {
    if (vm->reaching) continue;
    const bool warm = vm->phase() == record::VM_PHASE_WARM;
    const bool leased = vm->phase() == record::VM_PHASE_ASSIGNED && IsConfirmed(vm->record);
    // One that is being ended may have no agent: its clone failed before there was one.
    if ((!warm && !leased) || !IsLost(*vm)) continue;
    vm->reaching = true;
    tasks_.Spawn("reach " + vm->record.id(),
                 warm ? ReachLostWarm(vm) : ReachLeased(vm, /*first=*/false));
  }
}

asio::awaitable<void> Adoption::Stop() {
  tasks_.Cancel();
  co_await tasks_.Join();
}

}  // namespace hatchery::cache
