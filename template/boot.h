// Booting a guest until its agent answers, with the accelerator that really runs it.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>

#include "agent/client/client.h"
#include "base/fd.h"
#include "base/task.h"
#include "hypervisor/driver.h"
#include "template/verdicts.h"

namespace hatchery::tmpl {

struct BootedVm {
  // With boot_to_be_template: the memfd that is the guest's memory. Invalid otherwise.
  UniqueFd memory;
  std::unique_ptr<hypervisor::Vm> vm;
  std::unique_ptr<agent::Client> agent;
  std::chrono::nanoseconds boot_time{};  // from the VMM's start to the agent's answer
};

// Loop thread only.
class Booter {
 public:
  // `run_root`: where VMs' run folders are made, one per VM, named by its id. An absolute path.
  Booter(hypervisor::Driver& driver, agent::Connector& connector, AcceleratorVerdicts& verdicts,
         std::filesystem::path run_root);

  // Starts the VM of `config` (whose run_dir this sets and makes) and waits until its agent answers
  // a Check. The end of the VM ends the wait at once.
  //
  // With kAuto: kTcg where the host cannot have KVM; else the remembered verdict; and where there
  // is none, boots one VM under each and keeps the one whose agent answers first, ending the other,
  // and remembers which it was. The second one's id and folder end in "-kvm": look at the id of the
  // VM that comes back.
  //
  // With boot_to_be_template, `config.template_memory_fd` must be -1: each VM that is started gets
  // a memfd of its own, since two cannot share one, and the survivor's is in BootedVm::memory.
  //
  // If the guest did not get so far, the error (kDeadlineExceeded, or kFailedPrecondition when the
  // VM ended) holds the tail of its console. kAlreadyExists when there is a folder of that id.
  // Nothing is left behind on failure or cancellation.
  Task<BootedVm> Boot(hypervisor::VmConfig config, Deadline deadline);

  // Ends the VM and removes its folder. Success when it had ended. Also for VMs that were not
  // booted here but whose run_dir is below run_root (clones). Finishes although the caller is
  // cancelled. On failure the VMM may still run, and its folder stays.
  Task<void> Destroy(std::unique_ptr<hypervisor::Vm> vm);

  const std::filesystem::path& run_root() const { return run_root_; }

 private:
  Task<BootedVm> BootOne(hypervisor::VmConfig config, Deadline deadline);
  Task<BootedVm> Race(hypervisor::VmConfig config, Deadline deadline);
  Task<void> DestroyNow(std::unique_ptr<hypervisor::Vm> vm);

  hypervisor::Driver& driver_;
  agent::Connector& connector_;
  AcceleratorVerdicts& verdicts_;
  std::filesystem::path run_root_;
};

}  // namespace hatchery::tmpl
