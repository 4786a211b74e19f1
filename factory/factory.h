// The factory: makes one VM ready, and ends it. It joins what the hypervisor driver and the guest
// agent each know half of; which VMs there should be is the cache's business.
//
// Loop thread only.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "agent/client/client.h"
#include "base/offload.h"
#include "hypervisor/driver.h"
#include "template/boot.h"
#include "template/store.h"

namespace hatchery::factory {

// A VM with its open connections. The template is held so that its memory stays for as long as it
// is cloned from; null for a cold boot.
struct Machine {
  std::unique_ptr<hypervisor::Vm> vm;
  std::unique_ptr<agent::Client> agent;
  std::shared_ptr<const tmpl::LoadedTemplate> from;
  // What its guest has been told to bring online, of what is plugged in; 0: all of it.
  std::uint32_t online_vcpus = 0;
  Bytes online_memory;
};

// How far a clone has come; told before the step that the next name stands for is begun.
enum class CloneStage { kSpawning, kLoaded, kWarming };

struct CloneRequest {
  VmId id;
  std::shared_ptr<const tmpl::LoadedTemplate> from;
  // Sizes to have when warm, at least the template's: the difference is hot-added before warming,
  // so that an acquire of this shape resizes nothing.
  std::uint32_t vcpus = 0;
  Bytes memory;
  // Warming rehearses an assignment. A clone that somebody waits for needs none: its own follows.
  bool rehearse = true;
};

// Whether warming rehearses a command, too. kAuto: unless the guest's code is translated.
enum class RehearseCommand { kAuto, kAlways, kNever };

// Called as a clone enters each stage, with its VM; an error from it ends the clone.
using StageObserver = std::function<Result<void>(CloneStage, const hypervisor::Vm&)>;

// What a VM is made into when it is handed out.
struct Assignment {
  std::uint32_t vcpus = 0;  // totals; at least what the VM has
  Bytes memory;
  std::string hostname;
  std::string machine_id;
  // Whether to wait until the guest uses what was added. If not, `Assigned::report` says how much
  // it has online, and Client::AwaitOnline() when it has the rest.
  bool await_resize = true;
};

struct Assigned {
  agent::PersonalizeReport report;
  std::chrono::nanoseconds resize{};       // telling the VMM
  std::chrono::nanoseconds personalize{};  // resume to the agent's confirmation
};

class Factory {
 public:
  Factory(hypervisor::Driver& driver, agent::Connector& connector, tmpl::Booter& booter,
          WorkerPool& workers, const Clock& clock,
          RehearseCommand rehearse_command = RehearseCommand::kAuto);

  // Makes `machine`, which is empty, a paused, warm clone: its VMM holds the template's memory
  // privately, the agent has answered over the connection that stays open, and, unless told not to
  // rehearse, the whole path of an assignment has run in the guest, so that the next run meets warm
  // code and memory. On
  // failure or cancellation nothing is left and `machine` is empty; or, if its VMM could not be
  // ended within seconds, it is in `machine`, and the caller must Destroy() it. `machine` outlives
  // the call.
  Task<void> Clone(Machine& machine, CloneRequest request, StageObserver observer,
                   Deadline deadline);

  // Boots a guest without a template until its agent answers.
  Task<std::unique_ptr<Machine>> ColdBoot(hypervisor::VmConfig config, Deadline deadline);

  // Resizes a paused VM, resumes it and makes it unique. Fails closed: unless the agent confirmed
  // every part that it has a call for (see agent::PersonalizeReport), this is an error and the
  // caller must destroy the VM.
  Task<Assigned> Assign(Machine& machine, Assignment assignment, Deadline deadline);

  // Adds what a VM lacks of these totals; the guest has yet to bring it online. On failure it may
  // have some of it.
  Task<void> Resize(hypervisor::Vm& vm, std::uint32_t vcpus, Bytes memory, Deadline deadline);

  // Ends the VM and removes its folder. Keeps trying until both are done or `deadline`; the VMM is
  // killed first, so the VM can be used no more even when an error is returned. Agent calls in
  // flight fail with kUnavailable. Not cancellable.
  Task<void> Destroy(Machine& machine, Deadline deadline);

 private:
  Task<void> Spawn(Machine& machine, const CloneRequest& request, const StageObserver& observer,
                   Deadline deadline);
  Task<void> Warm(Machine& machine, bool rehearse, Deadline deadline);
  Task<void> Rehearse(Machine& machine, Deadline deadline);
  Task<void> DestroyNow(Machine& machine, Deadline deadline);

  hypervisor::Driver& driver_;
  agent::Connector& connector_;
  tmpl::Booter& booter_;
  WorkerPool& workers_;
  const Clock& clock_;
  const RehearseCommand rehearse_command_;
};

// 32 random hexadecimal digits, as systemd's machine-id(5) wants them.
std::string NewMachineId();

}  // namespace hatchery::factory
