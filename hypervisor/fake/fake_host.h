// The host that fake VMs run on: what real VMMs and their kernel would hold. It outlives drivers
// and Vm objects, as real VMs outlive the daemon, so a test can "restart" by making a new
// FakeDriver on the same host. Loop thread only.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/notifier.h"
#include "hypervisor/driver.h"

namespace hatchery::hypervisor::fake {

enum class Verb {
  kStart,
  kLoad,
  kPause,
  kResume,
  kSave,
  kAddVcpus,
  kAddMemory,
  kRemoveVcpus,
  kRemoveMemory,
  kHandOver,
  kStats,
  kWait,
  kStop,
  kReconnect,
  kDescribe,
};
inline constexpr std::size_t kVerbs = static_cast<std::size_t>(Verb::kDescribe) + 1;

struct Fault {
  enum class Kind {
    kNone,     // nothing: for the calls before the one that is meant
    kFail,     // the verb answers with `error`, having done nothing
    kHang,     // the verb answers only at its deadline, when it is cancelled, or when the VM ends
    kVmmDies,  // the VMM ends during the verb
  };
  Kind kind = Kind::kFail;
  Error error = {Code::kInternal, "injected fault"};
};

// One VMM, as it would be if it were a process.
struct Machine {
  Machine(Executor executor, VmConfig c)
      : config(std::move(c)), exit(executor), thawed(std::move(executor)) {}
  VmConfig config;
  VmState state = VmState::kCreated;
  pid_t pid = -1;
  std::uint32_t hot_vcpus = 0;
  std::vector<Bytes> dimms;
  std::string console;
  Bytes private_memory = Bytes::MiB(16);  // about what a real warm clone shows
  OneShot<ExitReason> exit;
  bool frozen = false;
  Notifier thawed;
  std::size_t cuts = 0;  // how often its control channel was cut
};

class FakeHost {
 public:
  explicit FakeHost(Executor executor) : executor_(std::move(executor)) {}

  // The next `times` calls of `verb`, of whatever VM, meet `fault`. Faults queue up.
  void Inject(Verb verb, Fault fault, std::size_t times = 1);
  void ClearFaults() { faults_ = {}; }
  // Every call of `verb` takes this long. 0 (the default): it answers without yielding.
  void SetDelay(Verb verb, std::chrono::nanoseconds delay);
  // How often a verb was called and got past the check of the VM's state.
  std::size_t calls(Verb verb) const { return calls_[Index(verb)]; }

  // The VMM ends as if killed, or as if the guest had ended. kNotFound when there is none.
  Result<void> Kill(const VmId& id,
                    ExitReason reason = {ExitReason::Kind::kVmmExited, "killed by the test"});
  // The VMM answers nobody until it is thawed, as if stopped by a signal; it can be ended.
  Result<void> Freeze(const VmId& id);
  Result<void> Thaw(const VmId& id);
  // Its control channel is lost; Reconnect() opens another.
  Result<void> Cut(const VmId& id);
  // What the guest prints.
  Result<void> Print(const VmId& id, std::string_view text);

  // VMs that were started and have not ended: empty at the end of a test that leaks nothing.
  std::vector<VmId> live() const;
  std::shared_ptr<Machine> Find(const VmId& id) const;

  // What Driver::Find() answers, as where the host is short of something.
  std::optional<Error> cannot_look;
  // The pid that VMs started from now on have.
  pid_t pid = -1;
  // The vsock context id that the next VM to be started has, and those after it the ones after; 0:
  // VMs have no vsock.
  std::uint32_t next_cid = 0;
  // What Describe() answers, besides what depends on the config.
  Fingerprint fingerprint = {{"vmm.version", "fake 1"}, {"machine", "fake"}};
  bool may_have_kvm = false;
  // Processes that Driver::FindStrays() names besides the live VMs.
  std::vector<Stray> strays;
  // What Vm::Supports() denies.
  std::set<std::pair<Resource, Operation>> unsupported;
  // Vm objects there are: whoever holds one for longer than its VM lives is in the way.
  std::atomic<std::size_t> objects = 0;

  // For the driver and its VMs.
  const Executor& executor() const { return executor_; }
  Result<void> Add(std::shared_ptr<Machine> machine);
  void End(Machine& machine, ExitReason reason);
  // What happens in a verb before its effect: delay and fault. `machine` may be null.
  Task<void> Meet(Verb verb, std::shared_ptr<Machine> machine, Deadline deadline);

 private:
  static std::size_t Index(Verb verb) { return static_cast<std::size_t>(verb); }

  Executor executor_;
  std::map<VmId, std::shared_ptr<Machine>> machines_;
  std::array<std::deque<Fault>, kVerbs> faults_;
  std::array<std::chrono::nanoseconds, kVerbs> delays_{};
  std::array<std::size_t, kVerbs> calls_{};
};

}  // namespace hatchery::hypervisor::fake
