// The part of a QEMU VM that outlives its QemuVm object while something still waits: the process,
// the control channel, what QEMU's events have told, and how it all ended. The verbs are in
// qemu_vm.cc and hotplug.cc; each holds the instance by shared_ptr, so that an object destroyed, a
// coroutine cancelled or a process killed at any moment leaves nothing dangling.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/notifier.h"
#include "base/process.h"
#include "hypervisor/driver.h"
#include "hypervisor/isolation.h"
#include "hypervisor/qemu/qmp.h"

namespace hatchery::hypervisor::qemu {

// Loop thread only.
class Instance : public std::enable_shared_from_this<Instance> {
 public:
  // A DIMM that was hot-added, and its memory's object.
  struct Dimm {
    std::string id;       // "dimm-0"
    std::string backend;  // "mem-0"
    Bytes size;
  };

  Instance(Executor executor, VmConfig config, std::shared_ptr<Isolation> isolation);

  // Starts watching a process for its end. On failure the process is as it was, and not ours.
  Result<void> Watch(std::unique_ptr<Process>& watched);
  // Ends one that could not be watched, in the background.
  void EndUnwatched(std::unique_ptr<Process> unwatched);
  // Talks to QEMU over `socket`; its events arrive here.
  void Connect(UniqueFd socket);
  // Lets go of process and channel without ending either.
  void Detach();
  // Closes the channel for good: somebody else will open one. The process is watched on.
  void LetGo();

  // Runs a command. Any failure to get an answer says what QEMU printed if it is gone.
  Task<Json> Execute(std::string command, Json arguments, Deadline deadline, int fd = -1);

  // Waits until `met()`, which is asked again after every event. kUnavailable when QEMU has gone.
  template <class Condition>
  Task<void> WaitUntil(Condition met, Deadline deadline) {
    const auto self = shared_from_this();
    while (!met()) {
      if (exit.has_value() || !qmp || !qmp->open()) co_return Unavailable("QEMU has ended");
      CO_RETURN_IF_ERROR(co_await changed.Wait(deadline));
    }
    co_return Result<void>();
  }

  // The state after a verb that failed; `error` with `what`, and QEMU's last words if it has gone.
  Task<void> Fail(std::string what, Error error);
  // QEMU stops a guest by itself when it cannot go on: emulation failed under KVM, a disk is full.
  // It stays alive and would look like a paused VM for ever. If `run_state` is such a one, ends it.
  bool EndIfBroken(const std::string& run_state);
  // Kills the process and waits for its end.
  Task<void> End(Deadline deadline);

  // The end of what QEMU itself printed; empty when it printed nothing.
  std::string LastWords() const;

  // Its cell is no longer needed: the process is gone, or there was none.
  void LeaveCell();

  VmConfig config;
  std::shared_ptr<Isolation> isolation;
  std::optional<Cell> cell;  // from the start of its process to its end
  VmState state = VmState::kCreated;
  std::unique_ptr<Process> process;  // null before Start() has come so far
  std::unique_ptr<QmpClient> qmp;
  OneShot<ExitReason> exit;
  Notifier changed;  // an event came, or the channel or the process ended

  bool greeted = false;                     // the channel has been used since it was opened
  bool starting = false;                    // Start() says itself what became of the VM
  bool detached = false;                    // the QemuVm is gone: nobody watches the process
  bool stop_requested = false;              // by Stop()
  std::string migration_status;             // of the last MIGRATION event
  std::uint32_t hot_vcpus = 0;              // "cpu-0" up to hot_vcpus - 1
  std::vector<Dimm> dimms;                  // in the order in which they came
  std::vector<std::string> loose_backends;  // their DIMM is gone; still to be deleted
  std::set<std::string> refused;            // devices that the guest did not let go of

 private:
  void OnEvent(const QmpEvent& event);
  void OnDeviceDeleted(const QmpEvent& event);
  void OnStop();
  void OnChannelClosed();
  Task<void> LookWhyStopped();
  asio::awaitable<void> Finish();
  ExitReason Explain(const Result<ExitStatus>& status) const;

  Executor executor_;
  std::optional<asio::posix::stream_descriptor> process_ended_;
  std::string shutdown_reason_;  // of the SHUTDOWN event, empty if there was none
  std::string broken_state_;     // QEMU's run state when it stopped the guest by itself
};

// "cpu-3", "dimm-3", "mem-3".
std::string DeviceId(std::string_view kind, std::size_t number);

}  // namespace hatchery::hypervisor::qemu
