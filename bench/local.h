// What is measured without a daemon, with the same parts that it is made of: cold boots, clones up
// to `loaded`, and QEMU alone. VMs live below a folder of our own and are ended before each call
// returns, also when it fails or is cancelled. Loop thread only.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "agent/client/ttrpc_client.h"
#include "base/offload.h"
#include "base/process.h"
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

  // "QEMU emulator version 7.2 …"
  Task<std::string> QemuVersion();

  struct ColdBoots {
    std::vector<double> seconds;  // from the VMM's start to the agent's answer
    std::vector<double> private_bytes;
  };
  // One after the other.
  Task<ColdBoots> BootCold(int samples);

  struct Starts {
    std::vector<double> clone;  // seconds, Create() and Start() to the end of Load()
    std::vector<double> bare;   // spawn to qmp_capabilities answered
  };
  // A clone of the template in `folder` (as the store wrote it; its files are linked, not used in
  // place) and a bare QEMU, in turn, so that both see the same host. One of each goes before and is
  // left out.
  Task<Starts> StartInTurn(std::filesystem::path folder, int samples);

 private:
  hypervisor::VmConfig ConfigOf(const char* prefix) const;
  Task<std::shared_ptr<const tmpl::LoadedTemplate>> LoadLinked(std::filesystem::path folder);
  Task<double> StartClone(std::shared_ptr<const tmpl::LoadedTemplate> from);
  Task<double> StartBare();
  Task<double> GreetBare(const std::filesystem::path& folder);

  const LocalOptions options_;
  Executor executor_;
  WorkerPool workers_;
  PosixSpawner spawner_;
  hypervisor::qemu::QemuDriver driver_;
  agent::TtrpcConnector connector_;
  tmpl::AcceleratorVerdicts verdicts_;
  tmpl::Booter booter_;
  std::unique_ptr<tmpl::Store> store_;
};

}  // namespace hatchery::bench
