#include "hypervisor/qemu/qemu_driver.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <sstream>

#include "hypervisor/qemu/proc.h"
#include "hypervisor/qemu/qemu_vm.h"
#include "hypervisor/qemu/strays.h"

namespace hatchery::hypervisor::qemu {

namespace {

// The program that posix_spawnp would start.
Task<std::string> Output(ProcessSpawner& spawner, std::vector<std::string> argv,
                         Deadline deadline) {
  const std::string program = argv[0];
  ASSIGN_OR_CO_RETURN(const CommandOutput output,
                      co_await RunCommand(spawner, std::move(argv), deadline));
  if (output.status.how != ExitStatus::How::kExited || output.status.value != 0) {
    co_return Internal(program + ": " + ToString(output.status) + ": " + output.err);
  }
  co_return output.out;
}

// "QEMU emulator version 7.2.22 (Debian …)" -> "QEMU 7.2.22 (Debian …)"
Result<std::string> ReadVersion(const std::string& text) {
  constexpr std::string_view kBefore = "QEMU emulator version ";
  if (!text.starts_with(kBefore)) {
    return Internal("it is not QEMU: --version answers '" + text.substr(0, 80) + "'");
  }
  return "QEMU " + text.substr(kBefore.size(), text.find('\n') - kBefore.size());
}

// "q35   Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)" -> "pc-q35-7.2"
Result<std::string> ReadMachine(const std::string& text) {
  constexpr std::string_view kAlias = "(alias of ";
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("q35 ")) continue;
    const auto at = line.find(kAlias);
    if (at == std::string::npos) break;
    const auto start = at + kAlias.size();
    return line.substr(start, line.find(')', start) - start);
  }
  return Internal("it has no machine type q35");
}

}  // namespace

QemuDriver::QemuDriver(Executor executor, ProcessSpawner& spawner, QemuOptions options,
                       std::shared_ptr<Isolation> isolation)
    : executor_(executor),
      spawner_(spawner),
      options_(std::move(options)),
      isolation_(std::move(isolation)),
      housekeeping_(std::move(executor), options_.console, isolation_) {}

Result<std::unique_ptr<Vm>> QemuDriver::Create(VmConfig config) {
  ASSIGN_OR_RETURN(VmConfig valid, Validate(std::move(config)));
  auto instance = std::make_shared<Instance>(executor_, std::move(valid), isolation_);
  housekeeping_.Add(instance);
  return std::make_unique<QemuVm>(spawner_, options_, std::move(instance));
}

Result<std::unique_ptr<Vm>> QemuDriver::Find(const std::string& handle) {
  ASSIGN_OR_RETURN(auto vm, QemuVm::Find(executor_, spawner_, options_, isolation_, handle));
  housekeeping_.Add(vm->instance());
  return vm;
}

Task<QemuDriver::About> QemuDriver::Ask(Deadline deadline) {
  ASSIGN_OR_CO_RETURN(const std::string program, FindProgram(options_.binary));
  ASSIGN_OR_CO_RETURN(const std::string identity, FileIdentity(program));
  if (const auto it = known_.find(identity); it != known_.end()) co_return it->second;

  // An upgrade between the two questions would mix two versions: look again afterwards.
  auto version_text = co_await Output(spawner_, {program, "--version"}, deadline);
  if (!version_text) co_return std::unexpected(version_text.error());
  auto version = ReadVersion(*version_text);
  if (!version) co_return Annotate(version.error(), program);
  auto machine_text = co_await Output(spawner_, {program, "-machine", "help"}, deadline);
  if (!machine_text) co_return std::unexpected(machine_text.error());
  auto machine = ReadMachine(*machine_text);
  if (!machine) co_return Annotate(machine.error(), program);
  ASSIGN_OR_CO_RETURN(const std::string after, FileIdentity(program));
  if (after != identity) co_return Unavailable(program + " was replaced just now; try again");
  const About about{*version, *machine};
  known_[identity] = about;
  co_return about;
}

Task<Fingerprint> QemuDriver::Describe(const VmConfig& given, Deadline deadline) {
  const VmConfig config = WithDefaults(given);
  ASSIGN_OR_CO_RETURN(const About about, co_await Ask(deadline));
  Fingerprint print = {
      {"vmm.version", about.version},
      {"machine", about.machine},
      {"accelerator", std::string(Name(config.accelerator))},
      {"cpu.model", std::string(CpuModel(config.accelerator))},
      {"devices", DeviceList(options_, config)},
      {"kernel_params", KernelParameters(config)},
      {"vcpus", std::to_string(config.vcpus) + " of " + std::to_string(config.max_vcpus)},
      {"memory", ToString(config.memory) + " of " + ToString(config.max_memory)},
  };
  if (config.accelerator == Accelerator::kKvm) {
    ASSIGN_OR_CO_RETURN(print["cpu.host_features"], HostCpuFeatures());
  } else {
    // An emulated guest keeps time by the host's counter, and has measured how fast that counts.
    ASSIGN_OR_CO_RETURN(print["cpu.host_model"], HostCpuModel());
  }
  co_return print;
}

bool QemuDriver::MayHave(Accelerator accelerator) const {
  if (accelerator != Accelerator::kKvm) return true;
  return UniqueFd(::open("/dev/kvm", O_RDWR | O_CLOEXEC)).valid() && isolation_->MayUseKvm();
}

std::vector<Stray> QemuDriver::FindStrays(const std::filesystem::path& run_root) {
  return FindVmms({.proc = "/proc",
                   .program = FindProgram(options_.binary).value_or(""),
                   .run_root = run_root,
                   .vouch = [this](pid_t pid) { return isolation_->Vouches(pid); }});
}

void QemuDriver::RemoveRemains(const std::filesystem::path&,
                               const std::function<bool(const VmId&)>& keep) {
  isolation_->RemoveGroups(keep);
}

std::string QemuDriver::DescribeIsolation() const {
  return isolation_->Describe() + (options_.sandbox ? ", seccomp" : ", no seccomp");
}

}  // namespace hatchery::hypervisor::qemu
