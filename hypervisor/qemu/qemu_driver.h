// Runs VMs with QEMU on x86-64; made for and tested with 7.2. See Driver in hypervisor/driver.h.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/process.h"
#include "hypervisor/driver.h"
#include "hypervisor/isolation.h"
#include "hypervisor/qemu/command_line.h"
#include "hypervisor/qemu/housekeeping.h"

namespace hatchery::hypervisor::qemu {

class QemuDriver final : public Driver {
 public:
  // `spawner` outlives the driver and its VMs. Without `isolation`, VMMs run as this process does.
  QemuDriver(Executor executor, ProcessSpawner& spawner, QemuOptions options = {},
             std::shared_ptr<Isolation> isolation = std::make_shared<Isolation>());

  std::string_view name() const override { return "qemu"; }
  Result<std::unique_ptr<Vm>> Create(VmConfig config) override;
  Result<std::unique_ptr<Vm>> Find(const std::string& handle) override;
  Task<Fingerprint> Describe(const VmConfig& config, Deadline deadline) override;
  bool MayHave(Accelerator accelerator) const override;
  std::vector<Stray> FindStrays(const std::filesystem::path& run_root) override;
  void RemoveRemains(const std::filesystem::path& run_root,
                     const std::function<bool(const VmId&)>& keep) override;
  std::string DescribeIsolation() const override;

 private:
  // What QEMU says of itself.
  struct About {
    std::string version;  // "QEMU 7.2.22 (Debian …)"
    std::string machine;  // what "q35" stands for: "pc-q35-7.2"
  };
  Task<About> Ask(Deadline deadline);

  Executor executor_;
  ProcessSpawner& spawner_;
  QemuOptions options_;
  std::shared_ptr<Isolation> isolation_;
  Housekeeping housekeeping_;
  // By the binary's path, inode, size and modification time: an upgrade makes another key.
  std::map<std::string, About> known_;
};

}  // namespace hatchery::hypervisor::qemu
