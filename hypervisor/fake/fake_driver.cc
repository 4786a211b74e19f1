#include "hypervisor/fake/fake_driver.h"

#include "hypervisor/fake/fake_vm.h"

namespace hatchery::hypervisor::fake {

Result<std::unique_ptr<Vm>> FakeDriver::Create(VmConfig config) {
  ASSIGN_OR_RETURN(VmConfig valid, Validate(std::move(config)));
  return std::make_unique<FakeVm>(host_,
                                  std::make_shared<Machine>(host_.executor(), std::move(valid)));
}

Result<std::unique_ptr<Vm>> FakeDriver::Find(const std::string& handle) {
  constexpr std::string_view kOurs = "fake 1 ";
  if (handle.starts_with('{')) return FailedPrecondition("the VM belongs to another driver");
  if (!handle.starts_with(kOurs)) return DataLoss("the handle of a VM cannot be read");
  if (host_.cannot_look) return std::unexpected(*host_.cannot_look);
  auto machine = host_.Find(VmId(handle.substr(kOurs.size())));
  if (!machine) return NotFound("the VM is gone");
  return std::make_unique<FakeVm>(host_, std::move(machine), /*found=*/true);
}

Task<Fingerprint> FakeDriver::Describe(const VmConfig& given, Deadline deadline) {
  const VmConfig config = WithDefaults(given);
  CO_RETURN_IF_ERROR(co_await host_.Meet(Verb::kDescribe, nullptr, deadline));
  Fingerprint print = host_.fingerprint;
  print["accelerator"] = Name(config.accelerator);
  print["kernel_params"] = config.kernel_params;
  print["vcpus"] = std::to_string(config.vcpus) + " of " + std::to_string(config.max_vcpus);
  print["memory"] = ToString(config.memory) + " of " + ToString(config.max_memory);
  co_return print;
}

std::vector<Stray> FakeDriver::FindStrays(const std::filesystem::path& run_root) {
  std::vector<Stray> found = host_.strays;
  for (const auto& id : host_.live()) {
    const auto machine = host_.Find(id);
    if (machine->config.run_dir.parent_path() != run_root) continue;
    found.push_back({id, {.pid = machine->pid}});
  }
  return found;
}

void FakeDriver::RemoveRemains(const std::filesystem::path& run_root,
                               const std::function<bool(const VmId&)>& keep) {
  for (const auto& id : host_.live()) {
    if (keep(id) || host_.Find(id)->config.run_dir.parent_path() != run_root) continue;
    (void)host_.Kill(id);
  }
}

bool FakeDriver::MayHave(Accelerator accelerator) const {
  return accelerator != Accelerator::kKvm || host_.may_have_kvm;
}

}  // namespace hatchery::hypervisor::fake
