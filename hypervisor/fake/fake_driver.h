// A driver without VMMs, for the tests of everything above: see FakeHost for delays, faults and
// crashes.
#pragma once

#include <memory>
#include <string>

#include "hypervisor/driver.h"
#include "hypervisor/fake/fake_host.h"

namespace hatchery::hypervisor::fake {

class FakeDriver final : public Driver {
 public:
  // `host` outlives the driver.
  explicit FakeDriver(FakeHost& host) : host_(host) {}

  std::string_view name() const override { return "fake"; }
  Result<std::unique_ptr<Vm>> Create(VmConfig config) override;
  Result<std::unique_ptr<Vm>> Find(const std::string& handle) override;
  Task<Fingerprint> Describe(const VmConfig& config, Deadline deadline) override;
  bool MayHave(Accelerator accelerator) const override;
  // The host's live VMs below `run_root`, and what the test says there is.
  std::vector<Stray> FindStrays(const std::filesystem::path& run_root) override;
  // Ends VMs that are not kept, as the members of control groups are.
  void RemoveRemains(const std::filesystem::path& run_root,
                     const std::function<bool(const VmId&)>& keep) override;
  std::string DescribeIsolation() const override { return "fake VMs are no processes"; }

 private:
  FakeHost& host_;
};

}  // namespace hatchery::hypervisor::fake
