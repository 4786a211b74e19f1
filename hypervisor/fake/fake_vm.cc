#include "hypervisor/fake/fake_vm.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <numeric>

#include "base/files.h"

namespace hatchery::hypervisor::fake {

namespace {

// What Save() writes and Load() expects.
constexpr std::string_view kSavedState = "hatchery fake device state 1\n";

Result<void> Require(const Machine& machine, std::string_view verb,
                     std::initializer_list<VmState> allowed) {
  if (std::ranges::find(allowed, machine.state) != allowed.end()) return {};
  return FailedPrecondition("VM " + machine.config.id.str() + " is " +
                            std::string(Name(machine.state)) + ": it cannot " + std::string(verb));
}

std::unexpected<Error> Fail(Machine& machine, Error error) {
  if (machine.state != VmState::kStopped) machine.state = VmState::kFailed;
  return std::unexpected(std::move(error));
}

Result<void> RequireSupport(const FakeVm& vm, Resource resource, Operation operation) {
  if (vm.Supports(resource, operation)) return {};
  return Unimplemented("the fake VMM was told not to support this");
}

Bytes HotAdded(const Machine& machine) {
  return std::accumulate(machine.dimms.begin(), machine.dimms.end(), Bytes());
}

Result<void> ReadState(int fd) {
  std::array<char, kSavedState.size()> bytes{};
  const off_t offset = ::lseek(fd, 0, SEEK_CUR);
  const ssize_t n = ::pread(fd, bytes.data(), bytes.size(), std::max<off_t>(0, offset));
  if (n < 0) return ErrnoError(errno, "reading the state");
  if (std::string_view(bytes.data(), static_cast<std::size_t>(n)) != kSavedState) {
    return Internal("the fake VMM could not read the state");
  }
  return {};
}

}  // namespace

Endpoints FakeVm::endpoints() const {
  const auto& run_dir = machine_->config.run_dir;
  Endpoints found = {.pid = machine_->pid,
                     .agent = UnixEndpoint{run_dir / "agent.sock"},
                     .control = {},
                     .console_log = run_dir / "console.log"};
  if (machine_->config.cid != 0 && !machine_->exit.has_value()) {
    found.agent_vsock = VsockEndpoint{.cid = machine_->config.cid};
  }
  return found;
}

Task<void> FakeVm::Start(Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "be started", {VmState::kCreated}));
  if (auto met = co_await host_.Meet(Verb::kStart, m, deadline); !met) {
    m->exit.Set({ExitReason::Kind::kVmmExited, met.error().message});
    m->state = VmState::kFailed;
    co_return std::unexpected(met.error());
  }
  CO_RETURN_IF_ERROR(host_.Add(m));
  m->pid = host_.pid;
  m->config.cid = host_.next_cid == 0 ? 0 : host_.next_cid++;
  m->state = m->config.boot_from_template ? VmState::kLoading : VmState::kRunning;
  co_return Result<void>();
}

bool FakeVm::reachable() const {
  return reached_ && cuts_ == machine_->cuts && machine_->state != VmState::kCreated &&
         machine_->state != VmState::kHandedOver && !machine_->exit.has_value();
}

Task<void> FakeVm::Reconnect(Deadline deadline) {
  const auto m = machine_;
  if (m->state == VmState::kCreated || m->state == VmState::kHandedOver ||
      m->state == VmState::kStopped) {
    co_return Require(*m, "be reached again", {});
  }
  CO_RETURN_IF_ERROR(co_await host_.Meet(Verb::kReconnect, m, deadline));
  if (m->exit.has_value()) co_return Unavailable("the fake VMM has ended");
  reached_ = true;
  cuts_ = m->cuts;
  co_return Result<void>();
}

Task<void> FakeVm::Load(int state_fd, Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "load a state", {VmState::kLoading}));
  auto met = co_await host_.Meet(Verb::kLoad, m, deadline);
  if (met) met = ReadState(state_fd);
  if (!met) co_return Fail(*m, met.error());
  m->state = VmState::kPaused;
  co_return Result<void>();
}

Task<void> FakeVm::Pause(Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "be paused", {VmState::kRunning, VmState::kPaused}));
  if (auto met = co_await host_.Meet(Verb::kPause, m, deadline); !met) {
    co_return Fail(*m, met.error());
  }
  m->state = VmState::kPaused;
  co_return Result<void>();
}

Task<void> FakeVm::Resume(Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "be resumed", {VmState::kRunning, VmState::kPaused}));
  if (auto met = co_await host_.Meet(Verb::kResume, m, deadline); !met) {
    co_return Fail(*m, met.error());
  }
  m->state = VmState::kRunning;
  co_return Result<void>();
}

Task<void> FakeVm::Save(int state_fd, Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "be saved", {VmState::kPaused}));
  if (!m->config.boot_to_be_template) {
    co_return FailedPrecondition("only a VM with boot_to_be_template can be saved");
  }
  auto met = co_await host_.Meet(Verb::kSave, m, deadline);
  if (met) met = WriteAll(state_fd, kSavedState);
  if (!met) co_return Fail(*m, met.error());
  co_return Result<void>();
}

bool FakeVm::Supports(Resource resource, Operation operation) const {
  return !host_.unsupported.contains({resource, operation});
}

Task<void> FakeVm::AddVcpus(std::uint32_t count, Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "get vCPUs", {VmState::kRunning, VmState::kPaused}));
  CO_RETURN_IF_ERROR(RequireSupport(*this, Resource::kVcpu, Operation::kHotAdd));
  const std::uint32_t now = m->config.vcpus + m->hot_vcpus;
  if (count > m->config.max_vcpus - now) {
    co_return ResourceExhausted(std::to_string(count) + " more vCPUs do not fit");
  }
  if (auto met = co_await host_.Meet(Verb::kAddVcpus, m, deadline); !met) {
    co_return Fail(*m, met.error());
  }
  m->hot_vcpus += count;
  co_return Result<void>();
}

Task<void> FakeVm::AddMemory(Bytes size, Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "get memory", {VmState::kRunning, VmState::kPaused}));
  CO_RETURN_IF_ERROR(RequireSupport(*this, Resource::kMemory, Operation::kHotAdd));
  if (size == Bytes() || !size.IsMultipleOf(kMemoryBlock)) {
    co_return InvalidArgument("memory", "is not a multiple of " + ToString(kMemoryBlock));
  }
  if (size > m->config.max_memory - m->config.memory - HotAdded(*m) ||
      m->dimms.size() >= kMemorySlots) {
    co_return ResourceExhausted(ToString(size) + " more memory do not fit");
  }
  if (auto met = co_await host_.Meet(Verb::kAddMemory, m, deadline); !met) {
    co_return Fail(*m, met.error());
  }
  m->dimms.push_back(size);
  co_return Result<void>();
}

Task<void> FakeVm::RemoveVcpus(std::uint32_t count, Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "give up vCPUs", {VmState::kRunning}));
  CO_RETURN_IF_ERROR(RequireSupport(*this, Resource::kVcpu, Operation::kHotRemove));
  if (count > m->hot_vcpus) co_return ResourceExhausted("fewer vCPUs were hot-added");
  CO_RETURN_IF_ERROR(co_await host_.Meet(Verb::kRemoveVcpus, m, deadline));
  m->hot_vcpus -= count;
  co_return Result<void>();
}

Task<void> FakeVm::RemoveMemory(Bytes size, Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "give up memory", {VmState::kRunning}));
  CO_RETURN_IF_ERROR(RequireSupport(*this, Resource::kMemory, Operation::kHotRemove));
  if (size > HotAdded(*m)) co_return ResourceExhausted("less memory was hot-added");
  std::size_t keep = m->dimms.size();
  Bytes sum;
  while (sum < size) sum += m->dimms[--keep];
  if (sum != size) {
    co_return InvalidArgument("memory", "the newest pieces of memory are " + ToString(sum));
  }
  CO_RETURN_IF_ERROR(co_await host_.Meet(Verb::kRemoveMemory, m, deadline));
  m->dimms.resize(keep);
  co_return Result<void>();
}

std::uint32_t FakeVm::vcpus() const { return machine_->config.vcpus + machine_->hot_vcpus; }
Bytes FakeVm::memory() const { return machine_->config.memory + HotAdded(*machine_); }

Task<Handover> FakeVm::HandOver(Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(Require(*m, "be handed over", {VmState::kPaused}));
  if (auto met = co_await host_.Meet(Verb::kHandOver, m, deadline); !met) {
    co_return Fail(*m, met.error());
  }
  Handover handover{.uuid = "fake-" + m->config.id.str(),
                    .vcpus = m->config.vcpus,
                    .max_vcpus = m->config.max_vcpus,
                    .hot_vcpus = {},
                    .bridges = {{"pci-bridge-0", 5, 30}}};
  for (std::uint32_t i = 0; i < m->hot_vcpus; ++i) {
    handover.hot_vcpus.push_back("cpu-" + std::to_string(i));
  }
  m->state = VmState::kHandedOver;
  co_return handover;
}

Task<VmStats> FakeVm::Stats(Deadline deadline) {
  const auto m = machine_;
  if (m->state == VmState::kCreated || m->exit.has_value()) {
    co_return FailedPrecondition("the VM does not run");
  }
  CO_RETURN_IF_ERROR(co_await host_.Meet(Verb::kStats, m, deadline));
  // About what a real warm clone shows.
  co_return VmStats{.assigned = m->config.memory + HotAdded(*m),
                    .resident = Bytes::MiB(40),
                    .private_memory = m->private_memory,
                    .proportional = Bytes::MiB(20),
                    .cpu_time = std::chrono::milliseconds(30)};
}

std::string FakeVm::ConsoleTail(Bytes size) const {
  const std::string& all = machine_->console;
  return all.substr(all.size() - std::min<std::size_t>(all.size(), size.count()));
}

Task<ExitReason> FakeVm::Wait(Deadline deadline) {
  const auto m = machine_;
  CO_RETURN_IF_ERROR(co_await host_.Meet(Verb::kWait, nullptr, deadline));
  co_return co_await m->exit.Wait(deadline);
}

Task<void> FakeVm::Stop(Deadline deadline) {
  const auto m = machine_;
  if (!m->exit.has_value() && m->state != VmState::kCreated) {
    CO_RETURN_IF_ERROR(co_await host_.Meet(Verb::kStop, m, deadline));
  }
  host_.End(*m, {ExitReason::Kind::kStopped, "stopped"});
  co_return Result<void>();
}

std::string FakeVm::Handle() const { return "fake 1 " + machine_->config.id.str(); }

}  // namespace hatchery::hypervisor::fake
