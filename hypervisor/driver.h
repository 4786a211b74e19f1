// The one interface to virtual machine monitors (VMMs). QEMU and a fake implement it; both pass
// tests/hypervisor/driver_contract.h. What a VMM cannot do is data (Supports), not an override that
// fails. A driver knows nothing of agents, templates' names or pools: it has verbs of the host
// side.
//
// All of it is loop thread only. Every verb takes a deadline and, when it fails, says what the VMM
// said. A failed verb leaves the VM in kFailed unless its comment says otherwise; Stop() is the way
// out of every state.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/endpoint.h"
#include "base/fd.h"
#include "base/ids.h"
#include "base/process.h"
#include "base/task.h"
#include "hypervisor/config.h"

namespace hatchery::hypervisor {

// One VM, as its VMM sees it.
//
//   state      | Start       | Load   | Pause  | Resume  | Save     | HotAdd | Stop    | VMM exits
//   -----------+-------------+--------+--------+---------+----------+--------+---------+----------
//   kCreated   | kRunning or | -      | -      | -       | -        | -      | kStopped| -
//              | kLoading *  |        |        |         |          |        |         |
//   kLoading   | -           | kPaused| -      | -       | -        | -      | kStopped| kStopped
//   kRunning   | -           | -      | kPaused| same    | -        | same   | kStopped| kStopped
//   kPaused    | -           | -      | same   | kRunning| kPaused  | same   | kStopped| kStopped
//   kFailed    | -           | -      | -      | -       | -        | -      | kStopped| kStopped
//   kHandedOver| -           | -      | -      | -       | -        | -      | kStopped| kStopped
//   kStopped   | -           | -      | -      | -       | -        | -      | same    | -
//
//   "-": kFailedPrecondition, nothing happens. "same": success, the state stays.
//   * kLoading for a VM with boot_from_template, which waits for Load(); kRunning otherwise.
//   HotAdd is AddVcpus and AddMemory. RemoveVcpus and RemoveMemory need a guest that runs: "same"
//   in kRunning, "-" elsewhere. A failed Start() leaves kFailed, with no VMM. Reconnect() is the
//   one way from kFailed to another state than kStopped: to what the VMM says. HandOver() leads
//   from kPaused to kHandedOver, where somebody else has the VMM's ear: whether its guest runs is
//   not known any more.
enum class VmState { kCreated, kLoading, kRunning, kPaused, kFailed, kHandedOver, kStopped };
std::string_view Name(VmState state);

enum class Resource { kVcpu, kMemory };
enum class Operation { kHotAdd, kHotRemove };

struct VmStats {
  Bytes assigned;                       // guest memory, hot-added included
  Bytes resident;                       // of the VMM process, template pages it shares included
  Bytes private_memory;                 // what this VM alone costs: Private_Clean + Private_Dirty
  Bytes proportional;                   // PSS: shared pages divided among their users
  std::chrono::nanoseconds cpu_time{};  // user + system, of the VMM process
};

struct ExitReason {
  enum class Kind {
    kStopped,     // by Stop()
    kGuestOff,    // the guest powered itself off or rebooted
    kGuestPanic,  // the guest's kernel reported a panic
    kVmmExited,   // the VMM ended for a reason of its own
  };
  Kind kind = Kind::kVmmExited;
  std::string detail;  // exit code or signal, and what the VMM last said
};
std::string_view Name(ExitReason::Kind kind);

struct Endpoints {
  pid_t pid = -1;                     // of the VMM; -1 where there is no process
  Endpoint agent;                     // where the guest's agent answers
  std::filesystem::path control;      // the VMM's own socket (QMP or API); empty if none
  std::filesystem::path console_log;  // what the guest printed
  // Where the guest's agent answers besides. Absent where the VM has no vsock, and once it has
  // ended: its context id may be another's by then.
  std::optional<VsockEndpoint> agent_vsock = {};
};

// What another program needs to go on with a VM as its own.
struct Handover {
  struct Bridge {
    std::string id;           // "pci-bridge-0"
    std::uint32_t addr = 0;   // its slot on the root bus
    std::uint32_t slots = 0;  // for devices, counted from 1; all of them free
  };
  std::string uuid;                    // of the VM, as its guest sees it
  std::uint32_t vcpus = 0;             // at start
  std::uint32_t max_vcpus = 0;         // each a socket of its own
  std::vector<std::string> hot_vcpus;  // ids of those that were hot-added since, oldest first
  std::vector<Bridge> bridges;
};

class Vm {
 public:
  // Does not end the VMM: VMs outlive the daemon. Stop() does.
  virtual ~Vm() = default;

  virtual const VmConfig& config() const = 0;
  virtual VmState state() const = 0;
  // Valid from a successful Start() on.
  virtual Endpoints endpoints() const = 0;

  // Starts the VMM. A cold boot runs from here on; a clone waits, without CPU use, for Load(). On
  // failure the VMM is gone and the error holds what it printed.
  virtual Task<void> Start(Deadline deadline) = 0;

  // Whether the VMM can be spoken to. False from Driver::Find() up to the first Reconnect(), and
  // when its control channel is lost: the guest may run all the same, and Wait() and Stop() work.
  virtual bool reachable() const = 0;
  // Opens the control channel anew, and learns state and sizes from the VMM. On failure the VM is
  // as it was, in kFailed if it never was reached, and it may be tried again. One call at a time.
  virtual Task<void> Reconnect(Deadline deadline) = 0;

  // Reads the template's device state from `state_fd` (from its current offset; still the
  // caller's). A regular file's offset is left alone, so that several clones may load from one
  // descriptor at once. The VM is paused afterwards.
  virtual Task<void> Load(int state_fd, Deadline deadline) = 0;

  virtual Task<void> Pause(Deadline deadline) = 0;
  virtual Task<void> Resume(Deadline deadline) = 0;

  // Writes the device state of a paused VM, without its memory, to `state_fd`. Only with
  // boot_to_be_template: the memory is in template_memory_fd already.
  virtual Task<void> Save(int state_fd, Deadline deadline) = 0;

  // Where this is false, the verb answers kUnimplemented: QEMU under TCG cannot remove vCPUs.
  virtual bool Supports(Resource resource, Operation operation) const = 0;

  // Adds `count` vCPUs or `size` of memory to a running or paused VM. The guest still has to bring
  // them online. kResourceExhausted past the VM's maxima or memory slots, kInvalidArgument for
  // sizes that are zero or not multiples of kMemoryBlock; after these two the VM is as it was.
  virtual Task<void> AddVcpus(std::uint32_t count, Deadline deadline) = 0;
  virtual Task<void> AddMemory(Bytes size, Deadline deadline) = 0;
  // Takes hot-added ones away again, newest first; waits until the guest has let go of them. Memory
  // goes in the pieces in which it came: one AddMemory(), one piece. The VM runs on after a failure
  // (kFailedPrecondition: the guest refused; kResourceExhausted: fewer were hot-added;
  // kInvalidArgument: the newest pieces do not add up to `size`; kDeadlineExceeded: the guest has
  // not let go yet and still may); what it had let go of before is gone: see vcpus() and memory().
  virtual Task<void> RemoveVcpus(std::uint32_t count, Deadline deadline) = 0;
  virtual Task<void> RemoveMemory(Bytes size, Deadline deadline) = 0;

  // What the VM has now, hot-added included.
  virtual std::uint32_t vcpus() const = 0;
  virtual Bytes memory() const = 0;

  // Lets go of a paused VM, so that somebody else can control it: the control channel is closed for
  // good, and the VMM accepts another. From then on only Stats(), ConsoleTail(), Wait() and Stop()
  // work, and Handle() says so to a later process's Find(). kUnimplemented where the VMM cannot be
  // handed over; then the VM is as it was.
  virtual Task<Handover> HandOver(Deadline deadline) = 0;

  virtual Task<VmStats> Stats(Deadline deadline) = 0;

  // The end of the guest's console output, at most `size`. Works also after the VM has ended, until
  // run_dir is removed.
  virtual std::string ConsoleTail(Bytes size) const = 0;

  // Returns when the VM has ended, by whatever cause. May be awaited by several, and again.
  virtual Task<ExitReason> Wait(Deadline deadline) = 0;

  // Ends the VM at once (the guest is not asked), reaps the VMM, removes its sockets. Success when
  // it had ended. On kDeadlineExceeded the VMM may still be there: call again.
  virtual Task<void> Stop(Deadline deadline) = 0;

  // Everything a later process needs to take this VM over with Driver::Find(): opaque bytes,
  // versioned by the driver. Valid from a successful Start() on; changes with hot-adds.
  virtual std::string Handle() const = 0;
};

// What a saved device state depends on, by name: "vmm.version" -> "QEMU 7.2.22 (…)", "machine",
// "cpu.model", "cpu.host_features" (under KVM), "cpu.host_model" (emulated), "devices",
// "kernel_params" … A template can be cloned only where all of it is the same. Sorted, so that it
// hashes the same everywhere.
using Fingerprint = std::map<std::string, std::string>;

// A VMM that runs, with the VM that it was started for.
struct Stray {
  VmId id;
  ProcessIdentity process;
};

class Driver {
 public:
  virtual ~Driver() = default;
  virtual std::string_view name() const = 0;  // "qemu", "fake"

  // A VM that is not started yet. The config is validated here (Validate()); nothing outside exists
  // before Start().
  virtual Result<std::unique_ptr<Vm>> Create(VmConfig config) = 0;

  // The running VM of a handle: its process is found and watched from here on, and nobody is
  // spoken to, so that it takes no time whatever the VMM does. It is in kFailed until Reconnect()
  // has reached it; one that was handed over is in kHandedOver and stays there. kNotFound when it
  // is gone, kDataLoss when the handle cannot be read, kFailedPrecondition when it is of another
  // driver. Its config has no template_memory_fd.
  virtual Result<std::unique_ptr<Vm>> Find(const std::string& handle) = 0;

  // Find() and Reconnect(). A VM whose VMM is there but does not answer comes back as it was found.
  Task<std::unique_ptr<Vm>> Adopt(std::string handle, Deadline deadline);

  // See Fingerprint; starts the VMM once to ask its version, and remembers it until the
  // binary changes. kNotFound or kPermissionDenied when the VMM cannot be run.
  virtual Task<Fingerprint> Describe(const VmConfig& config, Deadline deadline) = 0;

  // Whether this host may have the accelerator at all (/dev/kvm can be opened): a necessary
  // condition. Only a boot is sufficient.
  virtual bool MayHave(Accelerator accelerator) const = 0;

  // The VMMs that were started, by this driver or an earlier one, for VMs whose run_dir is in
  // `run_root`: by what the host says, not by any record. Those that are on record are among them;
  // the caller knows which. A process that only looks at a VM's files is not: what comes back may
  // be killed. One VM may appear more than once.
  virtual std::vector<Stray> FindStrays(const std::filesystem::path& run_root) = 0;

  // Ends and removes what VMMs have left on the host outside their run_dir (control groups), of
  // VMs below `run_root` that `keep` does not know. Done when strays have been ended.
  virtual void RemoveRemains(const std::filesystem::path& run_root,
                             const std::function<bool(const VmId&)>& keep) = 0;

  // How VMMs are kept apart from the host and from each other, for people: "own uid each (…),
  // cgroup v1 (memory, pids, cpu), seccomp".
  virtual std::string DescribeIsolation() const = 0;
};

}  // namespace hatchery::hypervisor
