// What this host can do for Hatchery, one small check per thing. Each looks at files below `root`
// ("/" but in tests) or asks the kernel, changes nothing, and never fails: what it could not find
// out is a finding too.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace hatchery::cli {

// kFail: Hatchery cannot work until it is fixed. kWarn: it works, but slower, or less of it.
enum class Verdict { kOk, kWarn, kFail };
std::string_view Name(Verdict verdict);  // "ok", "warn", "fail"

struct Finding {
  std::string check;  // "kvm_device", as in --json
  Verdict verdict = Verdict::kOk;
  std::string found;
  std::string fix;  // what to do about it; empty if nothing
};

// Whether there is a /dev/kvm, it can be opened and makes a VM: necessary, never sufficient, for a
// guest to run. One finding for each, up to the first that fails.
std::vector<Finding> CheckKvmDevice(const std::filesystem::path& root);

// `version_output`: what `qemu-system-x86_64 --version` printed; empty if it could not be run.
Finding CheckQemuVersion(std::string_view binary, std::string_view version_output);

Finding CheckMemory(const std::filesystem::path& root);
Finding CheckHugePages(const std::filesystem::path& root);
// Whether VMs can have vsock context ids: /dev/vhost-vsock can be opened and gives one.
Finding CheckVsock(const std::filesystem::path& root);
Finding CheckCgroup(const std::filesystem::path& root);
// That a memfd can be made and sealed: template memory is one.
Finding CheckMemfd();
// apt-get and dpkg, in the folders of `path` (as $PATH) below `root`: image building needs them.
Finding CheckImageTools(const std::filesystem::path& root, std::string_view path);
// `soft` and `hard`: RLIMIT_NOFILE. The daemon raises its own soft limit up to the hard one.
Finding CheckOpenFiles(std::uint64_t soft, std::uint64_t hard);
// That the folder, or the one it would be made in, can be written to.
Finding CheckStateDir(const std::filesystem::path& state_dir);

// All of the above on this host. Runs `qemu_binary --version`, which takes some 20 ms.
std::vector<Finding> CheckHost(const std::filesystem::path& state_dir,
                               const std::string& qemu_binary);

std::string ToText(const std::vector<Finding>& findings);
// {"ok": …, "findings": […]}: ok unless something failed.
Json ToJson(const std::vector<Finding>& findings);
bool AnyFailed(const std::vector<Finding>& findings);

}  // namespace hatchery::cli
