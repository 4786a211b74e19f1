// What /proc says about a VMM process.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/status.h"
#include "hypervisor/driver.h"

namespace hatchery::hypervisor::qemu {

// Pure readers of the kernel's texts; kInternal when they do not look as proc(5) describes.
Result<VmStats> ParseSmapsRollup(std::string_view text);
Result<std::chrono::nanoseconds> ParseCpuTime(std::string_view stat);

// Memory and CPU time of a process; `assigned` is left to the caller. kNotFound when it is gone.
// Takes the kernel a walk over the process's page tables: about 1 ms.
Result<VmStats> ReadProcessStats(pid_t pid);

// The host CPU's model and feature flags as one text, of the first CPU in /proc/cpuinfo.
Result<std::string> HostCpuFeatures();
// The model's name alone.
Result<std::string> HostCpuModel();

// The path of a program, which is one or a name that is looked up in PATH. kNotFound and
// kPermissionDenied name it.
Result<std::string> FindProgram(const std::string& name);

// Equal as long as nobody replaced the file: its path, inode, size and modification time.
Result<std::string> FileIdentity(const std::string& path);

}  // namespace hatchery::hypervisor::qemu
