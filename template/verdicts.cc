#include "template/verdicts.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#include <cerrno>
#include <fstream>

#include "base/files.h"
#include "base/json.h"

namespace hatchery::tmpl {

namespace {

constexpr std::size_t kMaxVerdicts = 64;
constexpr Bytes kMaxFile = Bytes::MiB(1);

// {"<key>": "kvm", …}, oldest first; empty when there is none that can be read.
Json ReadVerdicts(const std::filesystem::path& file) {
  auto text = ReadFile(file, kMaxFile);
  if (!text) return Json::object();
  auto json = ParseJson(*text, file.string());
  return json && json->is_object() ? *std::move(json) : Json::object();
}

std::string CpuModel() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line;
  }
  return "unknown CPU";
}

}  // namespace

Result<std::string> FileIdentity(const std::filesystem::path& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return ErrnoError(errno, "looking at " + path.string());
  std::string identity;
  for (const auto part :
       {static_cast<std::int64_t>(info.st_dev), static_cast<std::int64_t>(info.st_ino),
        static_cast<std::int64_t>(info.st_size), static_cast<std::int64_t>(info.st_mtim.tv_sec),
        static_cast<std::int64_t>(info.st_mtim.tv_nsec),
        static_cast<std::int64_t>(info.st_ctim.tv_sec),
        static_cast<std::int64_t>(info.st_ctim.tv_nsec)}) {
    identity += (identity.empty() ? "" : ":") + std::to_string(part);
  }
  return identity;
}

Result<std::string> VerdictKey(const hypervisor::VmConfig& config, const std::string& vmm_version) {
  utsname host{};
  if (::uname(&host) != 0) return ErrnoError(errno, "asking for the host's kernel");
  std::string key =
      std::string(host.release) + " " + host.version + "; " + CpuModel() + "; " + vmm_version;
  for (const auto& file : {config.kernel, config.initrd, config.image}) {
    if (file.empty()) continue;
    ASSIGN_OR_RETURN(const std::string identity, FileIdentity(file));
    key += "; " + identity;
  }
  return key;
}

std::optional<hypervisor::Accelerator> AcceleratorVerdicts::Find(const std::string& key) const {
  const Json verdicts = ReadVerdicts(file_);
  const auto found = verdicts.find(key);
  if (found == verdicts.end() || !found->is_string()) return std::nullopt;
  auto accelerator = hypervisor::ParseAccelerator(found->get<std::string>());
  if (!accelerator || *accelerator == hypervisor::Accelerator::kAuto) return std::nullopt;
  return *accelerator;
}

Result<void> AcceleratorVerdicts::Remember(const std::string& key,
                                           hypervisor::Accelerator accelerator) {
  Json verdicts = ReadVerdicts(file_);
  verdicts.erase(key);
  while (verdicts.size() >= kMaxVerdicts) verdicts.erase(verdicts.begin());
  verdicts[key] = hypervisor::Name(accelerator);
  return WriteFileAtomically(file_, DumpJson(verdicts, 2) + "\n");
}

}  // namespace hatchery::tmpl
