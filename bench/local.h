// What is measured without a daemon, with the same parts that it is made of: cold boots, clones on
// demand, QEMU alone. VMs live below a folder of our own. A machine that a call here made is the
// caller's to Destroy(); a call that fails or is cancelled leaves none. Loop thread only.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "agent/client/ttrpc_client.h"
#include "base/offload.h"
#include "base/process.h"
#include "factory/factory.h"
#include "hypervisor/qemu/qemu_driver.h"
#include "image/image.h"
#include "template/boot.h"
#include "template/store.h"

namespace hatchery::bench {

struct LocalOptions {
  std::filesystem::path root;  // an existing folder of our own
  image::GuestImage image;
  std::string qemu;
  hypervisor::Accelerator accelerator = hypervisor::Accelerator::kTcg;  // not kAuto
  tmpl::Shape shape;
};

class Local {
 public:
  Local(asio::io_context& io, LocalOptions options);

  // Takes the template in `folder`, as a store wrote it: its files are linked, not used in place.
  // Before the first Clone().
  Task<void> UseTemplate(std::filesystem::path folder);

  // A guest without a template, until its agent has answered.
  Task<std::unique_ptr<factory::Machine>> BootCold();

  struct CloneTimes {       // seconds, from before its folder is made
    double loaded = 0;      // its VMM holds memory and device state
    double warm = 0;        // its agent has answered, and it is paused again
    double loaded_cpu = 0;  // CPU time of the VMM by then
    double warm_cpu = 0;
  };
  // What the daemon does when an acquire finds its pool empty. Fills `machine`, which is empty.
  Task<CloneTimes> Clone(factory::Machine& machine);

  // Resumes a paused clone and makes it unique, as an acquire does.
  Task<void> Assign(factory::Machine& machine);

  // Runs /bin/true; what it took.
  Task<double> Exec(factory::Machine& machine);

  // Adds vCPUs and memory to a running guest with QEMU's device_add and waits until the guest has
  // them online, which its agent sees to and tells; what it took.
  Task<double> HotAdd(factory::Machine& machine, std::uint32_t vcpus, Bytes memory);

  // Ends it and waits until it is gone.
  Task<void> Destroy(factory::Machine& machine);

  struct BareTimes {      // seconds, from before the spawn
    double greeting = 0;  // the first line on the QMP socket
    double answer = 0;    // a first command answered: QEMU's main loop runs
    double cpu = 0;       // its CPU time by then
  };
  // QEMU itself with nothing to run, as small as it gets: `qemu -S -machine q35 -nodefaults`.
  Task<BareTimes> StartBare();
  // `count` of them, `at_once` at a time, all kept until the last has answered; what it took.
  Task<double> StartBares(std::uint32_t count, std::size_t at_once);

 private:
  struct Bare;
  hypervisor::VmConfig ConfigOf(const char* prefix) const;
  Task<BareTimes> Spawn(Bare& bare);
  Task<void> End(Bare& bare);

  const LocalOptions options_;
  Executor executor_;
  WorkerPool workers_;
  PosixSpawner spawner_;
  std::unique_ptr<ProcessSpawner> vmm_spawner_;  // null: spawner_
  hypervisor::qemu::QemuDriver driver_;
  agent::TtrpcConnector connector_;
  tmpl::AcceleratorVerdicts verdicts_;
  tmpl::Booter booter_;
  SystemClock clock_;
  factory::Factory factory_;
  std::unique_ptr<tmpl::Store> store_;
  std::shared_ptr<const tmpl::LoadedTemplate> template_;
};

}  // namespace hatchery::bench
