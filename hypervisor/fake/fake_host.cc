#include "hypervisor/fake/fake_host.h"

namespace hatchery::hypervisor::fake {

void FakeHost::Inject(Verb verb, Fault fault, std::size_t times) {
  faults_[Index(verb)].insert(faults_[Index(verb)].end(), times, fault);
}

void FakeHost::SetDelay(Verb verb, std::chrono::nanoseconds delay) { delays_[Index(verb)] = delay; }

std::shared_ptr<Machine> FakeHost::Find(const VmId& id) const {
  const auto it = machines_.find(id);
  return it == machines_.end() ? nullptr : it->second;
}

Result<void> FakeHost::Kill(const VmId& id, ExitReason reason) {
  const auto machine = Find(id);
  if (!machine) return NotFound("no VM " + id.str() + " runs");
  End(*machine, std::move(reason));
  return {};
}

Result<void> FakeHost::Freeze(const VmId& id) {
  const auto machine = Find(id);
  if (!machine) return NotFound("no VM " + id.str() + " runs");
  machine->frozen = true;
  return {};
}

Result<void> FakeHost::Thaw(const VmId& id) {
  const auto machine = Find(id);
  if (!machine) return NotFound("no VM " + id.str() + " runs");
  machine->frozen = false;
  machine->thawed.NotifyAll();
  return {};
}

Result<void> FakeHost::Cut(const VmId& id) {
  const auto machine = Find(id);
  if (!machine) return NotFound("no VM " + id.str() + " runs");
  ++machine->cuts;
  return {};
}

Result<void> FakeHost::Print(const VmId& id, std::string_view text) {
  const auto machine = Find(id);
  if (!machine) return NotFound("no VM " + id.str() + " runs");
  machine->console += text;
  return {};
}

std::vector<VmId> FakeHost::live() const {
  std::vector<VmId> ids;
  for (const auto& [id, machine] : machines_) ids.push_back(id);
  return ids;
}

Result<void> FakeHost::Add(std::shared_ptr<Machine> machine) {
  const VmId id = machine->config.id;
  if (!machines_.emplace(id, std::move(machine)).second) {
    return AlreadyExists("a VM " + id.str() + " runs already");
  }
  return {};
}

void FakeHost::End(Machine& machine, ExitReason reason) {
  machine.state = VmState::kStopped;
  machine.exit.Set(std::move(reason));
  machine.thawed.NotifyAll();
  // Last: it may hold the only reference.
  const auto it = machines_.find(machine.config.id);
  if (it != machines_.end() && it->second.get() == &machine) machines_.erase(it);
}

Task<void> FakeHost::Meet(Verb verb, std::shared_ptr<Machine> machine, Deadline deadline) {
  ++calls_[Index(verb)];
  if (const auto delay = delays_[Index(verb)]; delay.count() > 0) {
    const Deadline done = After(delay);
    CO_RETURN_IF_ERROR(
        co_await SleepFor(Sooner(done, deadline) - std::chrono::steady_clock::now()));
    if (done > deadline) co_return DeadlineExceeded("deadline exceeded");
  }
  while (machine && machine->frozen && !machine->exit.has_value() && verb != Verb::kStop) {
    CO_RETURN_IF_ERROR(co_await machine->thawed.Wait(deadline));
  }
  const bool has_ended = machine && machine->exit.has_value() && verb != Verb::kStop;
  if (has_ended) co_return Unavailable("the fake VMM has ended");
  auto& faults = faults_[Index(verb)];
  if (faults.empty()) co_return Result<void>();
  const Fault fault = faults.front();
  faults.pop_front();
  switch (fault.kind) {
    case Fault::Kind::kNone: break;
    case Fault::Kind::kFail: co_return std::unexpected(fault.error);
    case Fault::Kind::kHang: {
      OneShot<ExitReason> never(executor_);
      auto& end = machine ? machine->exit : never;
      auto ended = co_await end.Wait(deadline);
      if (!ended) co_return std::unexpected(ended.error());
      co_return Unavailable("the fake VMM has ended");
    }
    case Fault::Kind::kVmmDies:
      if (machine) End(*machine, {ExitReason::Kind::kVmmExited, "injected crash"});
      co_return Unavailable("the fake VMM has ended");
  }
  co_return Result<void>();
}

}  // namespace hatchery::hypervisor::fake
