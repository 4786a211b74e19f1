// Who may have a VM now, and who is refused at once: how many acquires wait, what each tenant holds
// (quotas.h), and whether the host has the memory (memory_account.h). What is refused is
// kResourceExhausted, with a hint when to try again.
//
// Everything that is admitted is held by an object that gives it back when it is destroyed, so that
// whatever ends an acquire or a lease ends what was counted for it. These objects may outlive
// Admission.
//
// When memory is short idle VMs go first, leased ones never:
//
//   room < 0                               idle VMs are ended until it is not, or none is left
//   an acquire needs more than there is    idle VMs are ended for it, if that is enough
//   room >= a clone + a quarter of the     pools refill; the free memory of a busy host goes up and
//           reserve (128 MiB by default,   down by tens of MiB per second, and pools should not
//           256 MiB at most)
//
// Asking is a few additions, without system calls: the host is looked at once per second, and VMs
// are measured in the background, each about every 10 seconds, when no acquire is under way. Only
// where the answer would be no is the host looked at again first. Loop thread only.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/slots.h"
#include "cache/host_memory.h"
#include "cache/memory_account.h"
#include "cache/quotas.h"
#include "cache/right_of_way.h"
#include "cache/vms.h"

namespace hatchery::cache {

struct Books;  // what is counted, shared with those who give back

// What one lease holds of its tenant's limits and of memory: the VM's, while it is leased.
class Grant {
 public:
  Grant(std::shared_ptr<Books> books, std::string tenant, std::uint32_t vcpus, Bytes memory);
  ~Grant();
  Grant(const Grant&) = delete;
  Grant& operator=(const Grant&) = delete;

  // What the VM has privately by now: it may grow by so much less.
  void Measured(Bytes private_memory);

 private:
  std::shared_ptr<Books> books_;
  const std::string tenant_;
  const std::uint32_t vcpus_;
  const Bytes memory_;
  Bytes growth_;
};

// Those who keep idle VMs.
class IdleVms {
 public:
  virtual ~IdleVms() = default;
  // In the order in which they are to go.
  virtual std::vector<VmPtr> Idle() const = 0;
  // Ends one of them.
  virtual void Evict(const VmPtr& vm) = 0;
  // A clone that AdmitRefill() refused may have room now.
  virtual void Retry() = 0;
};

class Admission {
 public:
  // All outlive this.
  Admission(Executor executor, Vms& vms, RightOfWay& right_of_way, HostMemoryReader& host_memory,
            const Settings& settings);

  // Call both once, before anything is admitted. Until Attach() there are no idle VMs.
  void Attach(IdleVms& idle) { idle_ = &idle; }
  // Counts the leases that an earlier daemon granted, whatever the limits say, and begins to look.
  void Start();
  asio::awaitable<void> Stop();

  // A place among the acquires that are under way or wait; repeats take one too.
  class Place {
   public:
    explicit Place(std::shared_ptr<Books> books);
    Place(Place&& other) noexcept = default;
    Place& operator=(Place&&) = delete;
    ~Place();

   private:
    std::shared_ptr<Books> books_;
  };
  // When all are taken the hint is how long they take to empty, at the rate of late.
  Result<Place> Enter();

  // One lease of these sizes. Ends idle VMs and waits for their memory if that is what it takes.
  Task<std::shared_ptr<Grant>> Admit(std::string tenant, std::uint32_t vcpus, Bytes memory,
                                     Deadline deadline);
  // The lease has come about: it holds `grant` until it ends.
  static void Give(VmEntry& vm, std::shared_ptr<Grant> grant);

  // A clone under way: for its duration, and no longer than its Admission.
  class Clone {
   public:
    explicit Clone(std::shared_ptr<Books> books);
    Clone(Clone&& other) noexcept = default;
    Clone& operator=(Clone&&) = delete;
    ~Clone();

   private:
    friend class Admission;
    std::shared_ptr<Books> books_;
    std::optional<Slots::Slot> slot_;
  };
  // One for an acquire that found no warm VM: at most [pool] parallel_clones at once, the others
  // wait.
  Task<Clone> AdmitClone(Deadline deadline);
  // One for a pool. Those that were refused are told when to retry.
  Result<Clone> AdmitRefill();

  struct Memory {
    HostMemory host;
    Bytes reserve, private_memory, growth;
  };
  // None when memory is not accounted.
  std::optional<Memory> memory() const;
  const std::map<std::string, Quotas::Held>& tenants() const;
  std::size_t waiting() const;

  // What happens by itself every so often: the host is looked at, and idle VMs are ended or pools
  // told to retry; and a VM is measured.
  void Look();
  asio::awaitable<void> Measure(VmPtr vm);

 private:
  asio::awaitable<void> KeepLooking();
  asio::awaitable<void> KeepMeasuring();
  VmPtr NextToMeasure();
  void ReadHost();
  Task<void> MakeRoom(Deadline deadline);
  void Evict(bool only_if_enough);
  Bytes CostOf(const VmEntry& vm) const;
  std::unexpected<Error> TooLittle() const;

  Vms& vms_;
  RightOfWay& right_of_way_;
  HostMemoryReader& host_memory_;
  const Settings& settings_;
  std::shared_ptr<Books> books_;
  IdleVms* idle_ = nullptr;
  std::vector<VmPtr> going_;  // evicted, and perhaps not gone yet
  bool pools_wait_ = false;   // for room: refused a refill, or shrunk
  bool cannot_read_ = false;  // and the log has it
  Deadline last_read_{};
  VmId last_measured_;
  Slots cloning_;
  TaskScope tasks_;
};

}  // namespace hatchery::cache
