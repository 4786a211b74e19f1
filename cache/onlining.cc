#include "cache/onlining.h"

#include <algorithm>

#include "base/both.h"
#include "base/log.h"

namespace hatchery::cache {

namespace {

// How long a guest may take before it is said to have a problem. On an idle host a CPU takes 0.3 s
// under emulation; on a loaded one, 2 s were seen.
constexpr auto kPatience = std::chrono::seconds(10);
// Pauses after a problem, doubling from the first to the last.
constexpr std::chrono::nanoseconds kFirstPause = std::chrono::milliseconds(250);
constexpr std::chrono::nanoseconds kLastPause = std::chrono::minutes(1);

// The guest's answer; kUnavailable when the VM has gone first.
Task<agent::OnlineReport> Ask(VmPtr vm) {
  const auto machine = vm->machine;  // outlives the call, whatever happens to the VM
  const auto& r = vm->record;
  auto [online, gone] =
      co_await Either(machine->agent->AwaitOnline(r.vcpus(), Bytes(r.memory_bytes()),
                                                  r.vcpus() - r.pending_vcpus(), After(kPatience)),
                      vm->gone.Wait(Deadline::max()));
  if (gone) co_return Unavailable("the VM has ended");
  co_return std::move(online);
}

}  // namespace

Onlining::Onlining(Executor executor, Vms& vms)
    : vms_(vms), changed_(executor), followers_(executor) {}

void Onlining::Note(VmEntry& vm, std::uint32_t online_vcpus, Bytes online_memory) {
  auto& r = vm.record;
  r.set_pending_vcpus(r.vcpus() - std::min(r.vcpus(), online_vcpus));
  r.set_pending_memory_bytes(r.memory_bytes() - std::min(r.memory_bytes(), online_memory.count()));
}

void Onlining::Follow(const VmPtr& vm) {
  if (vm->pending()) followers_.Spawn("online " + vm->record.id(), Run(vm));
}

Task<void> Onlining::Wait(VmPtr vm, Deadline deadline) {
  while (vm->pending() && vm->phase() == record::VM_PHASE_ASSIGNED) {
    if (!vm->pending_problem.empty()) {
      co_return Unavailable("VM " + vm->record.id() +
                            " is leased, but its resize is not complete: " + vm->pending_problem);
    }
    if (auto changed = co_await changed_.Wait(deadline); !changed) {
      co_return Annotate(changed.error(), "VM " + vm->record.id() +
                                              " is leased; waiting for its resize to complete");
    }
  }
  co_return Result<void>();
}

asio::awaitable<void> Onlining::Run(VmPtr vm) {
  for (auto pause = kFirstPause;; pause = std::min(pause * 2, kLastPause)) {
    auto online = co_await Ask(vm);
    if (co_await IsCancelled()) co_return;
    if (vm->phase() != record::VM_PHASE_ASSIGNED) break;
    Progress(vm, std::move(online));
    if (!vm->pending()) break;
    if (co_await vm->gone.Wait(After(pause)) || co_await IsCancelled()) co_return;
  }
  changed_.NotifyAll();
}

void Onlining::Progress(const VmPtr& vm, Result<agent::OnlineReport> online) {
  const auto before = vm->record.SerializeAsString();
  if (online) Note(*vm, online->vcpus, online->memory);
  std::string problem = online ? online->problem : online.error().message;
  if (!vm->pending()) problem.clear();
  if (problem.empty() != vm->pending_problem.empty()) {
    log::Write(problem.empty() ? log::Level::kInfo : log::Level::kWarning,
               {.vm = vm->record.id(), .request = vm->request.str()},
               problem.empty() ? "its resize is complete after all"
                               : "its resize is not complete: " + problem);
  }
  vm->pending_problem = std::move(problem);
  changed_.NotifyAll();
  if (vm->record.SerializeAsString() == before) return;
  if (auto written = vms_.Update(*vm); !written) {
    // The next daemon asks the guest again.
    log::Error({.vm = vm->record.id()}, "recording a resize: " + ToString(written.error()));
  }
}

asio::awaitable<void> Onlining::Stop() {
  followers_.Cancel();
  co_await followers_.Join();
}

}  // namespace hatchery::cache
