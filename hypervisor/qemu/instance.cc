#include "hypervisor/qemu/instance.h"

#include <signal.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "hypervisor/qemu/command_line.h"

namespace hatchery::hypervisor::qemu {

namespace {

using std::chrono::seconds;

// How long a process whose channel has closed, or that was killed, may take to be gone.
constexpr auto kExitGrace = seconds(5);
// How long one whose channel has closed is taken to be ending, as nearly all are.
constexpr auto kChannelGrace = seconds(1);
// How much of QEMU's own output goes into an error, and of the console is searched for a panic.
constexpr Bytes kWords = Bytes::KiB(1);
constexpr Bytes kConsoleSearched = Bytes::KiB(16);
constexpr std::string_view kPanic = "Kernel panic - not syncing";

}  // namespace

std::string DeviceId(std::string_view kind, std::size_t number) {
  return std::string(kind) + "-" + std::to_string(number);
}

Instance::Instance(Executor executor, VmConfig c, std::shared_ptr<Isolation> i)
    : config(std::move(c)),
      isolation(std::move(i)),
      exit(executor),
      changed(executor),
      executor_(std::move(executor)) {}

void Instance::LeaveCell() {
  if (const auto left = std::exchange(cell, {})) isolation->Free(*left);
}

Result<void> Instance::Watch(std::unique_ptr<Process>& watched) {
  // A descriptor of our own: Detach() cancels this wait and no other.
  ASSIGN_OR_RETURN(UniqueFd pidfd, Duplicate(watched->pidfd()));
  process = std::move(watched);
  process_ended_.emplace(executor_, pidfd.Release());
  process_ended_->async_wait(asio::posix::descriptor_base::wait_read,
                             [self = shared_from_this()](boost::system::error_code error) {
                               if (error) return;
                               asio::co_spawn(self->executor_, self->Finish(), asio::detached);
                             });
  return {};
}

void Instance::EndUnwatched(std::unique_ptr<Process> unwatched) {
  asio::co_spawn(
      executor_,
      [](std::unique_ptr<Process> ending) -> asio::awaitable<void> {
        (void)co_await ending->Kill(After(kExitGrace));
      }(std::move(unwatched)),
      asio::detached);
}

void Instance::Connect(UniqueFd socket) {
  // Weak: the channel belongs to this instance, not the other way round.
  const std::weak_ptr<Instance> weak = weak_from_this();
  qmp = std::make_unique<QmpClient>(executor_, std::move(socket),
                                    QmpClient::Handlers{.on_event =
                                                            [weak](const QmpEvent& event) {
                                                              if (const auto self = weak.lock())
                                                                self->OnEvent(event);
                                                            },
                                                        .on_close =
                                                            [weak] {
                                                              if (const auto self = weak.lock())
                                                                self->OnChannelClosed();
                                                            }});
}

void Instance::Detach() {
  detached = true;
  if (const auto left = std::exchange(cell, {}); left && process) {
    isolation->Abandon(*left, process->identity());
  }
  boost::system::error_code ignored;
  if (process_ended_) process_ended_->close(ignored);
  if (qmp) qmp->Close();
  changed.NotifyAll();
}

void Instance::LetGo() {
  state = VmState::kHandedOver;
  qmp->Close();
}

Task<Json> Instance::Execute(std::string command, Json arguments, Deadline deadline, int fd) {
  if (!qmp) return []() -> Task<Json> { co_return Unavailable("not connected to QEMU"); }();
  return qmp->Execute(std::move(command), std::move(arguments), deadline, fd);
}

void Instance::OnEvent(const QmpEvent& event) {
  if (event.name == "MIGRATION") {
    migration_status = Text(event.data, "status");
  } else if (event.name == "SHUTDOWN") {
    shutdown_reason_ = Text(event.data, "reason");
  } else if (event.name == "GUEST_PANICKED") {
    shutdown_reason_ = "guest-panic";
  } else if (event.name == "STOP") {
    OnStop();
  } else if (event.name == "DEVICE_DELETED") {
    OnDeviceDeleted(event);
  } else if (event.name == "DEVICE_UNPLUG_GUEST_ERROR" || event.name == "MEM_UNPLUG_ERROR") {
    refused.insert(Text(event.data, "device"));
  } else if (event.name == "ACPI_DEVICE_OST") {
    const auto found = event.data.find("info");
    const Json info = found == event.data.end() ? Json::object() : *found;
    // ACPI 6.4, 6.3.5: status 0 is success, 0x84 "ejection in progress"; anything else about an
    // ejection (source 3, or 0x103 while it is processed) is a refusal.
    const auto source = Number(info, "source"), status = Number(info, "status");
    if ((source == 3 || source == 0x103) && status != 0 && status != 0x84) {
      refused.insert(Text(info, "device"));
    }
  }
  changed.NotifyAll();
}

void Instance::OnDeviceDeleted(const QmpEvent& event) {
  // A vCPU's event names its interrupt controller only: path "/machine/peripheral/cpu-0/lapic".
  constexpr std::string_view kPeripheral = "/machine/peripheral/";
  std::string id = Text(event.data, "device");
  if (const std::string path = Text(event.data, "path"); id.empty()) {
    if (path.starts_with(kPeripheral)) id = path.substr(kPeripheral.size());
    id.resize(std::min(id.size(), id.find('/')));
  }
  if (hot_vcpus > 0 && id == DeviceId("cpu", hot_vcpus - 1)) --hot_vcpus;
  const auto dimm = std::ranges::find(dimms, id, &Dimm::id);
  if (dimm != dimms.end()) {
    loose_backends.push_back(dimm->backend);
    dimms.erase(dimm);
  }
}

// QEMU closes the channel as it ends, which is seen by itself. One that lives on has said what is
// no QMP, or was made to: it runs, but nothing can be asked of it any more.
void Instance::OnChannelClosed() {
  changed.NotifyAll();
  asio::co_spawn(
      executor_,
      [](std::shared_ptr<Instance> self) -> asio::awaitable<void> {
        if (co_await self->exit.Wait(After(kChannelGrace)) || self->detached) co_return;
        if (self->state == VmState::kRunning || self->state == VmState::kPaused) {
          self->state = VmState::kFailed;
          log::Warning({.vm = self->config.id.str()},
                       "QEMU lives, but its control channel is lost");
        }
      }(shared_from_this()),
      asio::detached);
}

void Instance::OnStop() {
  // Pause() sets its state when the command has been answered; QEMU tells of the stop before.
  asio::co_spawn(
      executor_,
      [](std::shared_ptr<Instance> self) -> asio::awaitable<void> {
        (void)co_await self->LookWhyStopped();
      }(shared_from_this()),
      asio::detached);
}

Task<void> Instance::LookWhyStopped() {
  ASSIGN_OR_CO_RETURN(const Json status, co_await Execute("query-status", {}, After(kExitGrace)));
  (void)EndIfBroken(Text(status, "status"));
  co_return Result<void>();
}

bool Instance::EndIfBroken(const std::string& run_state) {
  for (const char* broken : {"internal-error", "io-error", "guest-panicked", "watchdog"}) {
    if (run_state != broken) continue;
    broken_state_ = run_state;
    if (run_state == "guest-panicked") shutdown_reason_ = "guest-panic";
    state = VmState::kFailed;
    log::Warning({.vm = config.id.str()}, "QEMU stopped the guest: " + run_state);
    if (process) (void)process->Signal(SIGKILL);
    return true;
  }
  return false;
}

asio::awaitable<void> Instance::Finish() {
  const auto self = shared_from_this();
  const auto status = co_await process->Wait(After(kExitGrace));
  // What QEMU said before it ended may still be unread.
  if (qmp) (void)co_await qmp->WaitClosed(After(seconds(1)));
  for (const auto& socket : {AgentSocket(config), QmpSocket(config)}) {
    if (auto removed = RemoveAll(socket); !removed) {
      log::Warning({.vm = config.id.str()}, removed.error().message);
    }
  }
  LeaveCell();
  ExitReason reason = Explain(status);
  if (!starting) state = VmState::kStopped;
  exit.Set(std::move(reason));
  changed.NotifyAll();
}

ExitReason Instance::Explain(const Result<ExitStatus>& status) const {
  using Kind = ExitReason::Kind;
  const std::string how = status ? ToString(*status) : status.error().message;
  if (stop_requested) return {Kind::kStopped, how};
  const bool guest_ended =
      shutdown_reason_ == "guest-shutdown" || shutdown_reason_ == "guest-reset";
  // With panic=-1, a panic is followed by a reboot at once: the console tells them apart.
  const auto console = ReadTail(ConsoleLog(config), kConsoleSearched);
  const bool panicked = shutdown_reason_ == "guest-panic" ||
                        (guest_ended && console && console->find(kPanic) != std::string::npos);
  if (panicked) return {Kind::kGuestPanic, "the guest's kernel panicked"};
  if (guest_ended) return {Kind::kGuestOff, shutdown_reason_};
  // What its new controller was told, we were not.
  if (state == VmState::kHandedOver && status && status->how == ExitStatus::How::kExited &&
      status->value == 0) {
    return {Kind::kGuestOff, "ended after it was handed over"};
  }
  std::string detail = "QEMU ended with " + how;
  if (!broken_state_.empty()) detail = "QEMU could not go on: run state " + broken_state_;
  if (!shutdown_reason_.empty()) detail += " (" + shutdown_reason_ + ")";
  if (const auto words = LastWords(); !words.empty()) detail += ": " + words;
  return {Kind::kVmmExited, detail};
}

std::string Instance::LastWords() const {
  auto words = ReadTail(VmmLog(config), kWords).value_or("");
  while (!words.empty() && std::isspace(static_cast<unsigned char>(words.back()))) words.pop_back();
  return words;
}

Task<void> Instance::Fail(std::string what, Error error) {
  const auto self = shared_from_this();
  if (state != VmState::kStopped) state = VmState::kFailed;
  if (error.code == Code::kUnavailable && process) {
    // The channel ends a moment before the process does.
    if (auto reason = co_await exit.Wait(After(seconds(1)))) {
      error.message =
          reason->kind == ExitReason::Kind::kStopped ? "the VM was stopped" : reason->detail;
    }
  } else if (error.code != Code::kCancelled) {
    if (const auto words = LastWords(); !words.empty()) error.message += " (" + words + ")";
  }
  co_return Annotate(std::move(error), what);
}

Task<void> Instance::End(Deadline deadline) {
  const auto self = shared_from_this();
  if (!process) co_return Result<void>();
  if (!exit.has_value()) {
    if (auto sent = process->Signal(SIGKILL); !sent && sent.error().code != Code::kNotFound) {
      co_return std::unexpected(sent.error());
    }
  }
  ASSIGN_OR_CO_RETURN(const ExitReason reason, co_await exit.Wait(deadline));
  (void)reason;
  co_return Result<void>();
}

}  // namespace hatchery::hypervisor::qemu
