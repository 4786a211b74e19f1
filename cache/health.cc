#include "cache/health.h"

#include <algorithm>

#include "base/duration.h"

namespace hatchery::cache {

namespace {

// One answer may be late because the host was busy for a moment, or the daemon itself.
constexpr int kMissesToTell = 2;

bool IsInUse(const VmEntry& vm) {
  return vm.phase() == record::VM_PHASE_WARM || vm.phase() == record::VM_PHASE_ASSIGNED;
}

// Whether its agent should answer at once: not while its acquire makes it unique, or its guest
// brings up what was hot-added, or somebody paused it.
bool ShouldAnswer(const VmEntry& vm) {
  const bool resizing = vm.pending() && vm.pending_problem.empty();
  return vm.phase() == record::VM_PHASE_ASSIGNED && IsConfirmed(vm.record) && !resizing &&
         vm.machine->vm->state() == hypervisor::VmState::kRunning;
}

bool HasFailed(const VmEntry& vm) {
  // One that cannot be spoken to is adoption.h's business.
  return vm.machine->vm->state() == hypervisor::VmState::kFailed && vm.machine->vm->reachable();
}

}  // namespace

HealthChecks::HealthChecks(Executor executor, Vms& vms, const Settings& settings)
    : vms_(vms), settings_(settings), rounds_(executor), looks_(executor) {}

void HealthChecks::Start() {
  if (settings_.health.agent_interval.count() > 0) rounds_.Spawn("look after VMs", Run());
}

asio::awaitable<void> HealthChecks::Run() {
  const auto interval = settings_.health.agent_interval;
  for (;;) {
    std::vector<VmPtr> round;
    for (auto& vm : vms_.List()) {
      if (IsInUse(*vm)) round.push_back(std::move(vm));
    }
    std::erase_if(silent_, [&](const auto& entry) { return !vms_.Find(entry.first); });
    const auto step = interval / static_cast<int>(std::max<std::size_t>(round.size(), 1));
    if (round.empty() && !co_await SleepFor(step)) co_return;
    for (const auto& vm : round) {
      if (!co_await SleepFor(step)) co_return;
      looks_.Spawn("look at " + vm->record.id(), Look(vm));
    }
  }
}

asio::awaitable<void> HealthChecks::Look(VmPtr vm) {
  if (!IsInUse(*vm) || vm->reaching) co_return;
  if (HasFailed(*vm)) {
    // A leased one may be of use to its sandbox as long as its guest runs.
    if (vm->phase() == record::VM_PHASE_WARM) vms_.Fail(vm, "its VMM cannot be worked with");
    if (vm->phase() == record::VM_PHASE_ASSIGNED)
      vms_.SetProblem(*vm, "its VMM cannot be worked with");
    co_return;
  }
  if (!ShouldAnswer(*vm) || !asked_.insert(vm->id()).second) co_return;
  const auto machine = vm->machine;  // outlives the call, whatever happens to the VM
  const Deadline asked = std::chrono::steady_clock::now();
  const auto answer = co_await machine->agent->Check(After(settings_.health.agent_timeout));
  asked_.erase(vm->id());
  if (co_await IsCancelled() || !ShouldAnswer(*vm) || vm->reaching) co_return;
  Judge(vm, answer, asked);
}

void HealthChecks::Judge(const VmPtr& vm, const Result<void>& answer, Deadline asked) {
  if (answer) {
    silent_.erase(vm->id());
    return vms_.SetProblem(*vm, "");
  }
  Silence& silence = silent_[vm->id()];
  if (silence.missed++ == 0) silence.since = asked;
  const auto length = std::chrono::steady_clock::now() - silence.since;
  const auto longest = settings_.health.end_silent_after;
  if (silence.missed >= kMissesToTell && longest.count() > 0 && length >= longest) {
    vms_.Fail(vm, "its agent has been silent for " + ToWholeSeconds(length) + ": " +
                      answer.error().message);
  } else if (silence.missed >= kMissesToTell) {
    vms_.SetProblem(*vm, "its agent does not answer: " + answer.error().message);
  }
}

asio::awaitable<void> HealthChecks::Stop() {
  rounds_.Cancel();
  co_await rounds_.Join();
  looks_.Cancel();
  co_await looks_.Join();
}

}  // namespace hatchery::cache
