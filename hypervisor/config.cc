#include "hypervisor/config.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace hatchery::hypervisor {

namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kDefaultVcpus = 1;
constexpr std::uint32_t kDefaultMaxVcpus = 8;
constexpr Bytes kDefaultMemory = Bytes::MiB(2048);
constexpr Bytes kDefaultMaxMemory = Bytes::GiB(8);

Result<void> CheckFile(const char* field, const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) {
    return InvalidArgument(field, "'" + path.string() + "' does not exist");
  }
  // A block device is as good an image as a file.
  if (!fs::is_regular_file(status) && !fs::is_block_file(status)) {
    return InvalidArgument(field, "'" + path.string() + "' is not a file");
  }
  return {};
}

Result<void> CheckGuest(const VmConfig& config) {
  if (config.boot_from_template) {
    if (!config.kernel.empty()) {
      return InvalidArgument("kernel", "a clone has its kernel in the template's memory");
    }
    if (!config.initrd.empty()) {
      return InvalidArgument("initrd", "a clone has its initrd in the template's memory");
    }
  } else {
    if (config.kernel.empty()) return InvalidArgument("kernel", "must name a kernel image");
    RETURN_IF_ERROR(CheckFile("kernel", config.kernel));
    if (config.initrd.empty() == config.image.empty()) {
      return InvalidArgument(config.initrd.empty() ? "initrd" : "image",
                             "exactly one of initrd and image must be given");
    }
  }
  if (!config.initrd.empty()) RETURN_IF_ERROR(CheckFile("initrd", config.initrd));
  if (!config.image.empty()) RETURN_IF_ERROR(CheckFile("image", config.image));
  return {};
}

Result<void> CheckMemory(const char* field, Bytes memory) {
  if (memory == Bytes() || !memory.IsMultipleOf(kMemoryBlock)) {
    return InvalidArgument(field,
                           ToString(memory) + " is not a multiple of " + ToString(kMemoryBlock));
  }
  if (memory > kMaxMemory) {
    return InvalidArgument(field, ToString(memory) + " is more than " + ToString(kMaxMemory));
  }
  return {};
}

Result<void> CheckSize(const VmConfig& config) {
  if (config.max_vcpus > kMaxVcpus) {
    return InvalidArgument("max_vcpus", std::to_string(config.max_vcpus) + " is more than " +
                                            std::to_string(kMaxVcpus));
  }
  if (config.vcpus > config.max_vcpus) {
    return InvalidArgument("vcpus", std::to_string(config.vcpus) + " is more than max_vcpus, " +
                                        std::to_string(config.max_vcpus));
  }
  RETURN_IF_ERROR(CheckMemory("memory", config.memory));
  RETURN_IF_ERROR(CheckMemory("max_memory", config.max_memory));
  if (config.memory > config.max_memory) {
    return InvalidArgument("memory", ToString(config.memory) + " is more than max_memory, " +
                                         ToString(config.max_memory));
  }
  return {};
}

Result<void> CheckTemplateUse(const VmConfig& config) {
  constexpr const char* kField = "template_memory_fd";
  if (config.boot_to_be_template && config.boot_from_template) {
    return InvalidArgument("boot_from_template",
                           "a VM cannot be a clone and become a template at once");
  }
  const bool used = config.boot_to_be_template || config.boot_from_template;
  if (!used) {
    if (config.template_memory_fd < 0) return {};
    return InvalidArgument(kField, "is only for a VM that is a clone or becomes a template");
  }
  if (config.template_memory_fd < 0) {
    return InvalidArgument(kField, "is needed for a clone and for a VM that becomes a template");
  }
  struct stat info{};
  if (::fstat(config.template_memory_fd, &info) != 0) {
    return InvalidArgument(kField, std::strerror(errno));
  }
  const auto size = Bytes(static_cast<std::uint64_t>(info.st_size));
  if (size != config.memory) {
    return InvalidArgument(
        kField, "holds " + ToString(size) + ", but the VM's memory is " + ToString(config.memory));
  }
  if (config.boot_from_template) {
    // A VMM opens the memory read-write whatever it is told: only the seal keeps a template as it
    // was.
    const int seals = ::fcntl(config.template_memory_fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_WRITE) == 0) {
      return InvalidArgument(kField, "a clone's memory must be a memfd sealed against writing");
    }
  }
  return {};
}

}  // namespace

std::string_view Name(Accelerator accelerator) {
  switch (accelerator) {
    case Accelerator::kAuto: return "auto";
    case Accelerator::kKvm: return "kvm";
    case Accelerator::kTcg: return "tcg";
  }
  return "unknown";
}

Result<Accelerator> ParseAccelerator(std::string_view text) {
  for (const auto accelerator : {Accelerator::kAuto, Accelerator::kKvm, Accelerator::kTcg}) {
    if (text == Name(accelerator)) return accelerator;
  }
  return InvalidArgument("accelerator", "'" + std::string(text) + "' is none of auto, kvm and tcg");
}

VmConfig WithDefaults(VmConfig config) {
  if (config.vcpus == 0) config.vcpus = kDefaultVcpus;
  if (config.max_vcpus == 0) config.max_vcpus = std::max(config.vcpus, kDefaultMaxVcpus);
  if (config.memory == Bytes()) config.memory = kDefaultMemory;
  if (config.max_memory == Bytes()) config.max_memory = std::max(config.memory, kDefaultMaxMemory);
  return config;
}

Result<VmConfig> Validate(VmConfig config) {
  config = WithDefaults(std::move(config));
  RETURN_IF_ERROR(ValidateName("id", config.id.str()));
  std::error_code ignored;
  if (!config.run_dir.is_absolute() || !fs::is_directory(config.run_dir, ignored)) {
    return InvalidArgument("run_dir", "'" + config.run_dir.string() +
                                          "' is not the absolute path of an existing folder");
  }
  RETURN_IF_ERROR(CheckGuest(config));
  if (config.kernel_params.find('\0') != std::string::npos) {
    return InvalidArgument("kernel_params", "must not hold a zero byte");
  }
  RETURN_IF_ERROR(CheckSize(config));
  RETURN_IF_ERROR(CheckTemplateUse(config));
  if (config.accelerator == Accelerator::kAuto) {
    return InvalidArgument("accelerator", "'auto' must be resolved to kvm or tcg first");
  }
  return config;
}

}  // namespace hatchery::hypervisor
