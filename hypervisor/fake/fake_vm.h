// One VM in memory: the contract of Vm without a process, a socket or a guest.
#pragma once

#include <memory>
#include <string>

#include "hypervisor/driver.h"
#include "hypervisor/fake/fake_host.h"

namespace hatchery::hypervisor::fake {

class FakeVm final : public Vm {
 public:
  // `host` outlives the VM. `found`: it was started by another object, and is yet to be reached.
  FakeVm(FakeHost& host, std::shared_ptr<Machine> machine, bool found = false)
      : host_(host), machine_(std::move(machine)), reached_(!found), cuts_(machine_->cuts) {
    ++host_.objects;
  }
  ~FakeVm() override { --host_.objects; }

  const VmConfig& config() const override { return machine_->config; }
  VmState state() const override {
    const bool known =
        reached_ || machine_->exit.has_value() || machine_->state == VmState::kHandedOver;
    return known ? machine_->state : VmState::kFailed;
  }
  // The agent's is where QEMU's would be: fake agents are found by it. Nothing listens there.
  Endpoints endpoints() const override;
  Task<void> Start(Deadline deadline) override;
  bool reachable() const override;
  Task<void> Reconnect(Deadline deadline) override;
  Task<void> Load(int state_fd, Deadline deadline) override;
  Task<void> Pause(Deadline deadline) override;
  Task<void> Resume(Deadline deadline) override;
  Task<void> Save(int state_fd, Deadline deadline) override;
  bool Supports(Resource resource, Operation operation) const override;
  Task<void> AddVcpus(std::uint32_t count, Deadline deadline) override;
  Task<void> AddMemory(Bytes size, Deadline deadline) override;
  Task<void> RemoveVcpus(std::uint32_t count, Deadline deadline) override;
  Task<void> RemoveMemory(Bytes size, Deadline deadline) override;
  std::uint32_t vcpus() const override;
  Bytes memory() const override;
  Task<Handover> HandOver(Deadline deadline) override;
  Task<VmStats> Stats(Deadline deadline) override;
  std::string ConsoleTail(Bytes size) const override;
  Task<ExitReason> Wait(Deadline deadline) override;
  Task<void> Stop(Deadline deadline) override;
  std::string Handle() const override;

 private:
  FakeHost& host_;
  std::shared_ptr<Machine> machine_;
  bool reached_;
  std::size_t cuts_;  // Machine::cuts when it was last reached
};

}  // namespace hatchery::hypervisor::fake
