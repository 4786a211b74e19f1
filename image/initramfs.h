// What is in the guest's initramfs. Blocking file reads; belongs on a worker.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"

namespace hatchery::image {

struct InitramfsParts {
  std::filesystem::path agent;
  std::filesystem::path busybox;
  std::vector<std::string> applets;   // names that become symlinks to busybox
  std::filesystem::path modules_dir;  // the host's folder that becomes /lib/modules/VERSION
  std::string kernel_version;
};

// The archive: the agent as /init, busybox and its applets in /bin, the modules under /lib/modules
// and their paths, in load order, in /etc/hatchery/modules. kNotFound names a module that is
// missing; kUnimplemented for compressed modules, which the agent cannot load.
Result<std::string> MakeInitramfs(const InitramfsParts& parts);

}  // namespace hatchery::image
