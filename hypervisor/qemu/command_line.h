// QEMU's command line as a pure function of what the VM is: nothing here touches the host.
//
// A template and its clones get the same machine and devices at the same addresses, because the
// saved device state names them; only where the memory comes from, and what boots, differs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/offload.h"
#include "hypervisor/config.h"

namespace hatchery::hypervisor::qemu {

struct VhostVsock;

// What a driver is set to, for all its VMs.
struct QemuOptions {
  // A path, or a name that is looked up in PATH.
  std::string binary = "qemu-system-x86_64";
  // QEMU's seccomp sandbox: costs under 1 ms at start.
  bool sandbox = true;
  // The most that TCG's translated code may take of a VM's private memory.
  Bytes tb_size = Bytes::MiB(32);
  // Where the kernel counts the pages of a process, which takes it milliseconds when they are many.
  // Null: on the loop.
  WorkerPool* workers = nullptr;
  // How much of what a guest prints, and of what QEMU prints, is kept.
  Bytes console = Bytes::MiB(4);
  // Where VMs get their vsock context ids from (vsock.h). Null: VMs have no vsock device. Templates
  // that were made with it can be cloned only with it, and those without only without.
  std::shared_ptr<const VhostVsock> vsock = nullptr;
};

// What QEMU inherits, under these numbers.
struct Inherited {
  // Listening sockets.
  int agent = -1;
  int qmp = -1;
  // Open files that QEMU opens through /proc instead of by their paths, which the user that it runs
  // as may not be able to follow; -1: by path.
  int console = -1;
  int kernel = -1;
  int initrd = -1;
  int image = -1;
  // /dev/vhost-vsock, which has the config's cid; -1: the VM has no vsock device.
  int vsock = -1;
};

// Where a VM's files are in its run_dir.
std::filesystem::path AgentSocket(const VmConfig& config);  // agent.sock
std::filesystem::path QmpSocket(const VmConfig& config);    // qmp.sock
std::filesystem::path ConsoleLog(const VmConfig& config);   // console.log: what the guest printed
std::filesystem::path VmmLog(const VmConfig& config);       // vmm.log: what QEMU printed

// What follows -name, which is the first option of every VMM: its VM's run_dir.
std::string NameOf(const std::filesystem::path& run_dir);

// The bus that devices can be hot-plugged to: a bridge on the root bus, whose slots 1 to
// kBridgeSlots are free. Named as clients of Kata's protocol expect it.
inline constexpr std::string_view kBridge = "pci-bridge-0";
inline constexpr std::uint32_t kBridgeAddr = 5;
inline constexpr std::uint32_t kBridgeSlots = 30;

// The UUID of a VM: always the same for one id.
std::string UuidOf(const VmId& id);

// The whole argv of a validated config.
std::vector<std::string> CommandLine(const QemuOptions& options, const VmConfig& config,
                                     const Inherited& inherited);

// The devices of `config` as they appear on the command line, without anything that is one VM's
// alone: equal for a template and its clones.
std::string DeviceList(const QemuOptions& options, const VmConfig& config);

// The guest kernel's whole command line.
std::string KernelParameters(const VmConfig& config);

// "max" or "host": what -cpu gets.
std::string_view CpuModel(Accelerator accelerator);

}  // namespace hatchery::hypervisor::qemu
