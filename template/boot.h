// Booting a guest until its agent answers, with the accelerator that really runs it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "agent/client/client.h"
#include "base/task.h"
#include "hypervisor/driver.h"

namespace hatchery::tmpl {

// Which accelerator this host and guest image were seen to work with. Kept in a small file, because
// finding out costs a boot. Keyed by host kernel, CPU model, VMM version and guest kernel and
// initrd (or image) content: a change of any makes it unknown again.
class AcceleratorVerdicts {
 public:
  // `file` is created when there is something to remember; one that cannot be read is ignored.
  explicit AcceleratorVerdicts(std::filesystem::path file);
  std::optional<hypervisor::Accelerator> Find(const std::string& key) const;
  Result<void> Remember(const std::string& key, hypervisor::Accelerator accelerator);

 private:
  std::filesystem::path file_;
};

struct BootedVm {
  std::unique_ptr<hypervisor::Vm> vm;
  std::unique_ptr<agent::Client> agent;
};

// Loop thread only.
class Booter {
 public:
  // `run_root`: where VMs' run folders are made, one per VM, named by its id.
  Booter(hypervisor::Driver& driver, agent::Connector& connector, AcceleratorVerdicts& verdicts,
         std::filesystem::path run_root);

  // Starts the VM of `config` (whose run_dir this sets and makes) and waits until its agent answers
  // a Check. With kAuto: the remembered verdict; where there is none and the host may have KVM,
  // boots one VM under each and keeps the one whose agent answers first, ending the other, and
  // remembers which it was (the second one's id and folder end in "-kvm"). If the guest did not get
  // so far, the error holds the tail of its console. Nothing is left behind on failure or
  // cancellation.
  Task<BootedVm> Boot(hypervisor::VmConfig config, Deadline deadline);

  // Ends the VM and removes its folder. Success when it had ended. Also for VMs that were not
  // booted here but whose run_dir is below run_root (clones).
  Task<void> Destroy(std::unique_ptr<hypervisor::Vm> vm);

  const std::filesystem::path& run_root() const { return run_root_; }

 private:
  hypervisor::Driver& driver_;
  agent::Connector& connector_;
  AcceleratorVerdicts& verdicts_;
  std::filesystem::path run_root_;
};

}  // namespace hatchery::tmpl
