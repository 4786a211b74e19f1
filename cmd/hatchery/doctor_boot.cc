#include "cmd/hatchery/doctor_boot.h"

#include "agent/client/ttrpc_client.h"
#include "base/duration.h"
#include "base/files.h"
#include "cmd/hatchery/local.h"
#include "hypervisor/qemu/qemu_driver.h"
#include "image/image.h"
#include "template/boot.h"

namespace hatchery::cli {

namespace {

using hypervisor::Accelerator;

// Where KVM works a boot takes a second; where it does not, the guest hangs for good.
constexpr std::chrono::seconds kKvmTimeout{20};
constexpr std::chrono::seconds kTcgTimeout{60};

Task<std::chrono::nanoseconds> BootAndEnd(tmpl::Booter& booter, hypervisor::VmConfig config,
                                          Deadline deadline) {
  const auto start = std::chrono::steady_clock::now();
  ASSIGN_OR_CO_RETURN(tmpl::BootedVm booted, co_await booter.Boot(std::move(config), deadline));
  const auto took = std::chrono::steady_clock::now() - start;
  booted.agent.reset();
  CO_RETURN_IF_ERROR(co_await booter.Destroy(std::move(booted.vm)));
  co_return took;
}

// One line; the console's tail is for those who want to know more than doctor tells.
std::string Why(const Error& error, std::chrono::seconds timeout) {
  if (error.code == Code::kDeadlineExceeded) {
    return "its agent did not answer within " + hatchery::ToString(timeout);
  }
  return error.message.substr(0, error.message.find('\n'));
}

}  // namespace

std::vector<Finding> CheckBoots(const fs::path& image_dir, const std::string& qemu_binary, bool kvm,
                                const std::function<void(std::string)>& progress,
                                Interrupt& interrupt) {
  const auto image = image::Find(image_dir);
  if (!image) {
    return {{kvm ? "kvm_boot" : "boot", Verdict::kWarn,
             "no guest could be booted: there is no guest image in " + image_dir.string(),
             "build it with `hatchery image build -o " + image_dir.string() + "` and ask again"}};
  }
  // An interrupt between the boots must not leave the folder behind either.
  const Interrupt::Scope hold(interrupt, [] {});
  auto scratch = TempDir::Create(fs::temp_directory_path(), "hatchery-doctor-");
  if (!scratch) {
    return {{"boot", Verdict::kWarn, "no guest could be booted: " + scratch.error().message, ""}};
  }

  asio::io_context io;
  PosixSpawner spawner(io.get_executor());
  hypervisor::qemu::QemuOptions qemu;
  qemu.binary = qemu_binary;
  hypervisor::qemu::QemuDriver driver(io.get_executor(), spawner, qemu);
  agent::TtrpcConnector connector(io.get_executor());
  tmpl::AcceleratorVerdicts verdicts(scratch->path() / "verdicts");
  tmpl::Booter booter(driver, connector, verdicts, scratch->path());

  auto boot = [&](Accelerator accelerator, std::chrono::nanoseconds timeout) {
    hypervisor::VmConfig config;
    config.id = VmId(NewId("doctor"));
    config.kernel = image->kernel;
    config.initrd = image->initrd;
    config.accelerator = accelerator;
    config.vcpus = config.max_vcpus = 1;
    config.memory = config.max_memory = Bytes::MiB(256);
    return RunHere(io, interrupt, BootAndEnd(booter, std::move(config), After(timeout)));
  };

  std::vector<Finding> findings;
  if (kvm) {
    progress("booting a guest under KVM, for at most " + hatchery::ToString(kKvmTimeout));
    const auto booted = boot(Accelerator::kKvm, kKvmTimeout);
    if (booted) {
      return {{"kvm_boot", Verdict::kOk,
               "a guest runs under KVM: its agent answered after " + ToHuman(*booted), ""}};
    }
    if (booted.error().code == Code::kCancelled) return {};
    findings.push_back({"kvm_boot", Verdict::kWarn,
                        "/dev/kvm is there but does not run a guest (" +
                            Why(booted.error(), kKvmTimeout) +
                            "): guests run under emulation (TCG), several times slower",
                        "on a virtual machine, nested virtualization is at fault; hatcheryd finds "
                        "this out by itself with accelerator = \"auto\""});
  }
  progress("booting a guest under emulation, for at most " + hatchery::ToString(kTcgTimeout));
  const auto booted = boot(Accelerator::kTcg, kTcgTimeout);
  if (!booted && booted.error().code == Code::kCancelled) return findings;
  if (booted) {
    findings.push_back(
        {"tcg_boot", Verdict::kOk,
         "a guest runs under emulation: its agent answered after " + ToHuman(*booted), ""});
  } else {
    findings.push_back(
        {"tcg_boot", Verdict::kFail,
         "the guest of " + image_dir.string() + " does not boot: " + booted.error().message,
         "build the image anew: `hatchery image build -o " + image_dir.string() + "`"});
  }
  return findings;
}

}  // namespace hatchery::cli
