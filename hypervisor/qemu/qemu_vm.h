// One VM run by QEMU; see Vm in hypervisor/driver.h for the contract.
#pragma once

#include <memory>
#include <string>

#include "base/process.h"
#include "hypervisor/driver.h"
#include "hypervisor/qemu/command_line.h"
#include "hypervisor/qemu/instance.h"

namespace hatchery::hypervisor::qemu {

class QemuVm final : public Vm {
 public:
  // `spawner` outlives the VM's Start().
  QemuVm(ProcessSpawner& spawner, QemuOptions options, std::shared_ptr<Instance> vm);
  ~QemuVm() override;

  // See Driver::Find().
  static Result<std::unique_ptr<QemuVm>> Find(Executor executor, ProcessSpawner& spawner,
                                              QemuOptions options,
                                              std::shared_ptr<Isolation> isolation,
                                              const std::string& handle);

  const VmConfig& config() const override { return vm_->config; }
  VmState state() const override { return vm_->state; }
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

  const std::shared_ptr<Instance>& instance() const { return vm_; }

 private:
  ProcessSpawner& spawner_;
  QemuOptions options_;
  std::shared_ptr<Instance> vm_;
};

}  // namespace hatchery::hypervisor::qemu
