#include "hypervisor/qemu/command_line.h"

#include "base/fd.h"
#include "base/ids.h"
#include "base/sha256.h"

namespace hatchery::hypervisor::qemu {

namespace {

using Argv = std::vector<std::string>;

// A comma ends an option's value; a doubled one is a comma.
std::string Escaped(std::string_view value) {
  std::string escaped;
  for (const char c : value) {
    escaped.push_back(c);
    if (c == ',') escaped.push_back(',');
  }
  return escaped;
}

std::string PathOf(int inherited, const std::filesystem::path& path) {
  return inherited >= 0 ? ProcPath(inherited).string() : path.string();
}

std::string Mib(Bytes bytes) { return std::to_string(bytes.mib()) + "M"; }

void Add(Argv& argv, std::string option, std::string value) {
  argv.push_back(std::move(option));
  argv.push_back(std::move(value));
}

// What the guest sees of its board. SMM, SATA, SMBus and the VMware port are of no use to it, and
// leaving them out saves 2 MiB of QEMU's heap in every clone.
constexpr const char* kMachine = "q35,smm=off,sata=off,smbus=off,vmport=off";

void AddMachine(Argv& argv, const QemuOptions& options, const VmConfig& config) {
  // The guest's memory stays out of core dumps and of same-page merging: it holds its secrets.
  Add(argv, "-machine",
      std::string(kMachine) + ",memory-backend=m0,dump-guest-core=off,mem-merge=off");
  if (config.accelerator == Accelerator::kTcg) {
    Add(argv, "-accel", "tcg,tb-size=" + std::to_string(options.tb_size.mib()));
  } else {
    Add(argv, "-accel", "kvm");
  }
  Add(argv, "-cpu", std::string(CpuModel(config.accelerator)));
  // One socket per vCPU: each is a hot-plug unit of its own.
  Add(argv, "-smp",
      "cpus=" + std::to_string(config.vcpus) + ",sockets=" + std::to_string(config.max_vcpus) +
          ",cores=1,threads=1,maxcpus=" + std::to_string(config.max_vcpus));
}

void AddMemory(Argv& argv, const VmConfig& config) {
  std::string size = "size=" + Mib(config.memory);
  // QEMU refuses slots when there is no room for anything in them.
  if (config.max_memory > config.memory) {
    size += ",slots=" + std::to_string(kMemorySlots) + ",maxmem=" + Mib(config.max_memory);
  }
  Add(argv, "-m", size);
  if (config.boot_to_be_template || config.boot_from_template) {
    // Shared, the guest writes the template; private, it writes copies of the pages it touches.
    Add(argv, "-object",
        "memory-backend-file,id=m0,size=" + Mib(config.memory) +
            ",mem-path=" + ProcPath(config.template_memory_fd).string() +
            ",share=" + (config.boot_to_be_template ? "on" : "off"));
  } else {
    Add(argv, "-object", "memory-backend-ram,id=m0,size=" + Mib(config.memory));
  }
}

// What the guest finds on its buses, in order. Addresses are given, not left to QEMU's choice: the
// saved state names them.
Argv Devices(const VmConfig& config) {
  Argv devices = {
      // Two ports: the console's reserved port 0, and ours. (31, the default, cost each VM 0.5
      // MiB.)
      "virtio-serial-pci,id=serial0,max_ports=2,bus=pcie.0,addr=0x2",
      "virtserialport,bus=serial0.0,nr=1,chardev=agent,name=org.hatchery.agent.0",
      // A guest that was cloned needs fresh entropy at once.
      "virtio-rng-pci,id=rng0,bus=pcie.0,addr=0x3,rng=random0",
  };
  if (!config.image.empty()) {
    devices.emplace_back("virtio-blk-pci,id=root0,bus=pcie.0,addr=0x4,drive=root");
  }
  // Where whoever takes a VM over plugs in network cards and disks, under the names that Kata gives
  // them.
  devices.push_back("pci-bridge,id=" + std::string(kBridge) +
                    ",bus=pcie.0,addr=" + std::to_string(kBridgeAddr) + ",chassis_nr=1");
  devices.emplace_back("virtio-scsi-pci,id=scsi0,bus=pcie.0,addr=0x6,num_queues=1");
  return devices;
}

// What follows it on a command line, the context id and the descriptor, is one VM's alone and not
// in the saved state: QEMU tells a guest whose state it has loaded to look at its id anew.
constexpr const char* kVsock = "vhost-vsock-pci,id=vsock0,bus=pcie.0,addr=0x7";

void AddDevices(Argv& argv, const VmConfig& config, const Inherited& inherited) {
  // The sockets listen already: whoever connects waits in the backlog until QEMU accepts.
  Add(argv, "-chardev",
      "socket,id=agent,fd=" + std::to_string(inherited.agent) + ",server=on,wait=off");
  Add(argv, "-object", "rng-random,id=random0,filename=/dev/urandom");
  if (!config.image.empty()) {
    // Read-only: what one VM wrote would be missing in, or worse, shared with, its siblings.
    Add(argv, "-drive",
        "id=root,if=none,format=raw,readonly=on,file=" +
            Escaped(PathOf(inherited.image, config.image)));
  }
  for (auto& device : Devices(config)) Add(argv, "-device", std::move(device));
  if (inherited.vsock >= 0) {
    Add(argv, "-device",
        std::string(kVsock) + ",guest-cid=" + std::to_string(config.cid) +
            ",vhostfd=" + std::to_string(inherited.vsock));
  }
  Add(argv, "-chardev",
      "file,id=console,append=on,path=" + Escaped(PathOf(inherited.console, ConsoleLog(config))));
  Add(argv, "-serial", "chardev:console");
}

void AddControl(Argv& argv, const QemuOptions& options, const Inherited& inherited) {
  Add(argv, "-chardev",
      "socket,id=qmp,fd=" + std::to_string(inherited.qmp) + ",server=on,wait=off");
  Add(argv, "-mon", "chardev=qmp,mode=control");
  if (options.sandbox) {
    Add(argv, "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
  }
}

void AddBoot(Argv& argv, const VmConfig& config, const Inherited& inherited) {
  if (config.boot_from_template) {
    // The kernel is in the template's memory; loading it again would cost every clone 14 MiB.
    argv.emplace_back("-S");
    Add(argv, "-incoming", "defer");
    return;
  }
  Add(argv, "-kernel", PathOf(inherited.kernel, config.kernel));
  if (!config.initrd.empty()) Add(argv, "-initrd", PathOf(inherited.initrd, config.initrd));
  Add(argv, "-append", KernelParameters(config));
}

}  // namespace

std::filesystem::path AgentSocket(const VmConfig& config) { return config.run_dir / "agent.sock"; }
std::filesystem::path QmpSocket(const VmConfig& config) { return config.run_dir / "qmp.sock"; }
std::filesystem::path ConsoleLog(const VmConfig& config) { return config.run_dir / "console.log"; }
std::filesystem::path VmmLog(const VmConfig& config) { return config.run_dir / "vmm.log"; }

std::string NameOf(const std::filesystem::path& run_dir) { return Escaped(run_dir.string()); }

std::string UuidOf(const VmId& id) {
  std::string digits = ToHex(Sha256Of(id.str())).substr(0, 32);
  // As RFC 9562 wants one that is made in a way of its own: version 8, variant 10.
  digits[12] = '8';
  digits[16] = 'a';
  for (const std::size_t at : {20u, 16u, 12u, 8u}) digits.insert(at, "-");
  return digits;
}

std::string_view CpuModel(Accelerator accelerator) {
  // erms: a guest that believes in fast "rep stosb" clears its pages byte by byte, which under
  // emulation are 4096 trips through the translator instead of 512.
  return accelerator == Accelerator::kTcg ? "max,-erms" : "host";
}

std::string KernelParameters(const VmConfig& config) {
  // no_timer_check: on a loaded host, an emulated guest otherwise panics in its timer test.
  // swiotlb=noforce: because of what may be hot-added, the kernel would set 64 MiB aside as bounce
  // buffers, which no virtio device needs.
  // noreplace-smp: else the kernel, which boots on one CPU, patches all its locks when the second
  // comes, 150 ms of an acquire that adds one.
  // panic=-1 reboot=t: a panic ends the VM at once.
  std::string parameters =
      "console=ttyS0 quiet panic=-1 reboot=t no_timer_check swiotlb=noforce noreplace-smp";
  // Emulated vCPUs all read the one counter of the host, which the guest cannot know: it would fall
  // back to the HPET, whose every reading is a trip into the device model, under QEMU's lock.
  if (config.accelerator == Accelerator::kTcg) parameters += " tsc=reliable";
  if (!config.image.empty()) parameters += " root=/dev/vda ro";
  if (!config.kernel_params.empty()) parameters += " " + config.kernel_params;
  return parameters;
}

std::string DeviceList(const QemuOptions& options, const VmConfig& config) {
  std::string list = std::string("machine ") + kMachine;
  for (const auto& device : Devices(config)) list += "; " + device;
  if (options.vsock) list += std::string("; ") + kVsock;
  return list + "; serial console";
}

std::vector<std::string> CommandLine(const QemuOptions& options, const VmConfig& config,
                                     const Inherited& inherited) {
  Argv argv = {options.binary};
  // How it is known as ours, and whose it is, when no record says so (strays.h).
  Add(argv, "-name", NameOf(config.run_dir));
  // Nothing that is not asked for here: no default devices, no /etc/qemu, no display. A guest that
  // reboots ends: what would come up again is not the VM that was handed out.
  for (const char* flag : {"-nodefaults", "-no-user-config", "-nographic", "-no-reboot"}) {
    argv.emplace_back(flag);
  }
  Add(argv, "-uuid", UuidOf(config.id));
  AddMachine(argv, options, config);
  AddMemory(argv, config);
  AddDevices(argv, config, inherited);
  AddControl(argv, options, inherited);
  AddBoot(argv, config, inherited);
  return argv;
}

}  // namespace hatchery::hypervisor::qemu
