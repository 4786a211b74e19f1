// Which accelerator this host and guest image were seen to work with.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/status.h"
#include "hypervisor/config.h"

namespace hatchery::tmpl {

// What makes a file the same file with the same content, without reading it: device, inode, size
// and times of last change (which nobody can set back). kNotFound and the like name the file.
Result<std::string> FileIdentity(const std::filesystem::path& path);

// What a verdict is about: host kernel, CPU model, VMM version, and the guest's kernel and initrd
// or image by FileIdentity(). A change of any makes the verdict unknown again. Hashing the contents
// would say the same, but costs more than it saves where the guest is a large disk.
Result<std::string> VerdictKey(const hypervisor::VmConfig& config, const std::string& vmm_version);

// Verdicts by key, in a small file, because finding out costs a boot. Loop thread only.
class AcceleratorVerdicts {
 public:
  // `file` is created when there is something to remember; one that cannot be read is ignored.
  explicit AcceleratorVerdicts(std::filesystem::path file) : file_(std::move(file)) {}
  std::optional<hypervisor::Accelerator> Find(const std::string& key) const;
  // Forgets the oldest when there are more than 64.
  Result<void> Remember(const std::string& key, hypervisor::Accelerator accelerator);

 private:
  std::filesystem::path file_;
};

}  // namespace hatchery::tmpl
