#include "cmd/hatchery/doctor.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <sstream>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/files.h"
#include "base/process.h"
#include "base/run.h"
#include "cmd/hatchery/table.h"
#include "hypervisor/qemu/vsock.h"

namespace hatchery::cli {

namespace {

constexpr int kOldestQemuMajor = 7;
constexpr int kOldestQemuMinor = 2;
// A template of the default size, what the daemon needs, and some clones.
constexpr Bytes kComfortableMemory = Bytes::GiB(1);
// A VM holds some 10 descriptors in the daemon; a pool of 50 with room to spare.
constexpr std::uint64_t kComfortableOpenFiles = 4096;

// The value of "Name:   123 kB" in /proc/meminfo, in its unit.
std::optional<std::uint64_t> MemInfo(const std::string& text, std::string_view name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ':') continue;
    const auto digit = line.find_first_of("0123456789");
    if (digit == std::string::npos) return std::nullopt;
    std::uint64_t value = 0;
    std::from_chars(line.data() + digit, line.data() + line.size(), value);
    return value;
  }
  return std::nullopt;
}

std::string Reason() { return std::strerror(errno); }

}  // namespace

std::string_view Name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk: return "ok";
    case Verdict::kWarn: return "warn";
    case Verdict::kFail: return "fail";
  }
  return {};
}

std::vector<Finding> CheckKvmDevice(const fs::path& root) {
  const fs::path device = root / "dev/kvm";
  const std::string slower = "guests run under emulation (TCG), several times slower";
  std::vector<Finding> findings;
  if (::access(device.c_str(), F_OK) != 0) {
    findings.push_back({"kvm_device", Verdict::kWarn, "there is no /dev/kvm: " + slower,
                        "load kvm_intel or kvm_amd; on a virtual machine, enable nested "
                        "virtualization"});
    return findings;
  }
  findings.push_back({"kvm_device", Verdict::kOk, "/dev/kvm is there", ""});

  const UniqueFd kvm(::open(device.c_str(), O_RDWR | O_CLOEXEC));
  if (!kvm) {
    findings.push_back({"kvm_open", Verdict::kWarn,
                        "/dev/kvm cannot be opened (" + Reason() + "): " + slower,
                        "run as root or as a member of the group kvm"});
    return findings;
  }
  findings.push_back({"kvm_open", Verdict::kOk, "/dev/kvm can be opened", ""});

  const int version = ::ioctl(kvm.get(), KVM_GET_API_VERSION, 0);
  const UniqueFd vm(version < 0 ? -1 : ::ioctl(kvm.get(), KVM_CREATE_VM, 0));
  if (!vm) {
    findings.push_back({"kvm_create_vm", Verdict::kWarn,
                        "KVM does not make a VM (" + Reason() + "): " + slower,
                        "look for kvm in the kernel's log; on a virtual machine, enable nested "
                        "virtualization"});
    return findings;
  }
  findings.push_back({"kvm_create_vm", Verdict::kOk,
                      "KVM makes a VM (API version " + std::to_string(version) + ")", ""});
  return findings;
}

Finding CheckQemuVersion(std::string_view binary, std::string_view version_output) {
  const std::string name(binary);
  const std::string install = "install QEMU 7.2 or later: apt-get install qemu-system-x86";
  if (version_output.empty()) {
    return {"qemu", Verdict::kFail, name + " cannot be run", install};
  }
  constexpr std::string_view kWord = "version ";
  const auto at = version_output.find(kWord);
  int major = 0, minor = 0;
  const char* const last = version_output.data() + version_output.size();
  if (at != std::string_view::npos) {
    const auto [end, error] =
        std::from_chars(version_output.data() + at + kWord.size(), last, major);
    if (error == std::errc() && end != last && *end == '.') {
      std::from_chars(end + 1, last, minor);
    }
  }
  const std::string line(version_output.substr(0, version_output.find('\n')));
  if (major == 0) {
    return {"qemu", Verdict::kFail, name + " says '" + line + "', which is no version of QEMU",
            install};
  }
  if (std::pair(major, minor) < std::pair(kOldestQemuMajor, kOldestQemuMinor)) {
    return {"qemu", Verdict::kFail, name + " is too old: " + line, install};
  }
  return {"qemu", Verdict::kOk, line, ""};
}

Finding CheckMemory(const fs::path& root) {
  const auto text = ReadFile(root / "proc/meminfo", Bytes::MiB(1));
  const auto total = text ? MemInfo(*text, "MemTotal") : std::nullopt;
  const auto available = text ? MemInfo(*text, "MemAvailable") : std::nullopt;
  if (!total || !available) {
    return {"memory", Verdict::kWarn, "/proc/meminfo does not tell how much memory there is", ""};
  }
  const Bytes free = Bytes::KiB(*available);
  const std::string found = ToString(free) + " available of " + ToString(Bytes::KiB(*total));
  if (free < kComfortableMemory) {
    return {"memory", Verdict::kWarn, found,
            "a template takes its guests' memory once, each warm VM some 15 MiB more: keep pools "
            "small"};
  }
  return {"memory", Verdict::kOk, found, ""};
}

Finding CheckHugePages(const fs::path& root) {
  const auto mode = ReadFile(root / "sys/kernel/mm/transparent_hugepage/enabled", Bytes::KiB(4));
  const auto text = ReadFile(root / "proc/meminfo", Bytes::MiB(1));
  const auto reserved = text ? MemInfo(*text, "HugePages_Total") : std::nullopt;
  std::string thp = "absent";
  if (mode) {
    const auto open = mode->find('['), close = mode->find(']');
    if (open != std::string::npos && close != std::string::npos && close > open) {
      thp = mode->substr(open + 1, close - open - 1);
    }
  }
  return {"huge_pages", Verdict::kOk,
          "transparent: " + thp + "; reserved: " + std::to_string(reserved.value_or(0)) +
              "; clones share memory in small pages and need neither",
          ""};
}

Finding CheckVsock(const fs::path& root) {
  const fs::path device = root / "dev/vhost-vsock";
  if (::access(device.c_str(), F_OK) != 0) {
    return {
        "vsock", Verdict::kOk,
        "there is no /dev/vhost-vsock; agents are reached over virtio-serial, which needs nothing",
        ""};
  }
  const auto reserved = hypervisor::qemu::ReserveCid(hypervisor::qemu::KernelVhostVsock(device));
  if (!reserved) {
    return {"vsock", Verdict::kWarn,
            "/dev/vhost-vsock cannot be used (" + reserved.error().message +
                "): agents are reached over virtio-serial only",
            "run as root or as a member of the group kvm, with the module vhost_vsock loaded"};
  }
  return {"vsock", Verdict::kOk, "/dev/vhost-vsock gives VMs context ids of their own", ""};
}

Finding CheckCgroup(const fs::path& root) {
  if (::access((root / "sys/fs/cgroup/cgroup.controllers").c_str(), F_OK) == 0) {
    return {"cgroup", Verdict::kOk, "version 2", ""};
  }
  if (::access((root / "sys/fs/cgroup/memory").c_str(), F_OK) == 0) {
    return {"cgroup", Verdict::kOk, "version 1", ""};
  }
  return {"cgroup", Verdict::kWarn, "no cgroups are mounted: what VMs use cannot be limited",
          "mount cgroup2 on /sys/fs/cgroup"};
}

Finding CheckMemfd() {
  const std::string fix =
      "a Linux kernel with memfd_create is needed, and a sandbox around this that allows it";
  const UniqueFd memfd(::memfd_create("hatchery-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memfd || ::ftruncate(memfd.get(), 4096) != 0) {
    return {"memfd", Verdict::kFail, "no memory file can be made: " + Reason(), fix};
  }
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  if (::fcntl(memfd.get(), F_ADD_SEALS, kSeals) != 0) {
    return {"memfd", Verdict::kFail, "a memory file cannot be sealed: " + Reason(), fix};
  }
  const char byte = 0;
  if (::pwrite(memfd.get(), &byte, 1, 0) >= 0) {
    return {"memfd", Verdict::kFail, "a sealed memory file can still be written to", fix};
  }
  return {"memfd", Verdict::kOk, "memory files can be sealed: templates are safe from their clones",
          ""};
}

Finding CheckImageTools(const fs::path& root, std::string_view path) {
  auto find = [&](std::string_view tool) {
    std::istringstream folders{std::string(path)};
    for (std::string folder; std::getline(folders, folder, ':');) {
      const fs::path candidate = root / fs::path(folder).relative_path() / tool;
      if (::access(candidate.c_str(), X_OK) == 0) return true;
    }
    return false;
  };
  std::string missing;
  for (const std::string tool : {"apt-get", "dpkg"}) {
    if (!find(tool)) missing += (missing.empty() ? "" : " and ") + tool;
  }
  if (missing.empty()) {
    return {"image_tools", Verdict::kOk,
            "apt-get and dpkg are there: the default guest can be built", ""};
  }
  return {"image_tools", Verdict::kWarn,
          "no " + missing + ": the default guest cannot be built here",
          "build it on a Debian host with `hatchery image build -o DIR` and copy DIR"};
}

Finding CheckOpenFiles(std::uint64_t soft, std::uint64_t hard) {
  auto text = [](std::uint64_t limit) {
    return limit == RLIM_INFINITY ? std::string("unlimited") : std::to_string(limit);
  };
  const std::string found = "limit " + text(soft) + ", can be raised to " + text(hard);
  if (hard < kComfortableOpenFiles) {
    return {"open_files", Verdict::kWarn, found,
            "each VM needs some 10: raise the hard limit (LimitNOFILE= in a systemd unit)"};
  }
  return {"open_files", Verdict::kOk, found, ""};
}

Finding CheckStateDir(const fs::path& state_dir) {
  std::error_code ignored;
  fs::path nearest = state_dir;
  while (!fs::exists(nearest, ignored) && nearest.has_parent_path() &&
         nearest != nearest.parent_path()) {
    nearest = nearest.parent_path();
  }
  const std::string name = state_dir.string();
  if (!fs::is_directory(nearest, ignored)) {
    return {"state_dir", Verdict::kFail, nearest.string() + " is not a folder",
            "choose another with --state-dir"};
  }
  if (::access(nearest.c_str(), W_OK | X_OK) != 0) {
    return {"state_dir", Verdict::kFail, nearest.string() + " cannot be written to: " + Reason(),
            "run as root, or give hatcheryd a --state-dir of your own"};
  }
  return {"state_dir", Verdict::kOk,
          nearest == state_dir ? name + " can be written to" : name + " can be made", ""};
}

std::vector<Finding> CheckHost(const fs::path& state_dir, const std::string& qemu_binary) {
  const fs::path root = "/";
  std::vector<Finding> findings = CheckKvmDevice(root);

  asio::io_context io;
  PosixSpawner spawner(io.get_executor());
  const auto version = RunUntilDone(
      io, RunCommand(spawner, {qemu_binary, "--version"}, After(std::chrono::seconds(10))));
  findings.push_back(CheckQemuVersion(qemu_binary, version ? version->out : ""));

  findings.push_back(CheckMemory(root));
  findings.push_back(CheckMemfd());
  findings.push_back(CheckHugePages(root));
  findings.push_back(CheckVsock(root));
  findings.push_back(CheckCgroup(root));
  const char* path = std::getenv("PATH");
  findings.push_back(CheckImageTools(root, path == nullptr ? "" : path));
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  findings.push_back(CheckOpenFiles(files.rlim_cur, files.rlim_max));
  findings.push_back(CheckStateDir(state_dir));
  return findings;
}

bool AnyFailed(const std::vector<Finding>& findings) {
  return std::ranges::any_of(findings,
                             [](const Finding& f) { return f.verdict == Verdict::kFail; });
}

std::string ToText(const std::vector<Finding>& findings) {
  std::size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.check.size());
  std::string text;
  for (const Finding& finding : findings) {
    std::string name = finding.check;
    std::ranges::replace(name, '_', ' ');
    name.resize(width, ' ');
    const std::string verdict(Name(finding.verdict));
    text += verdict + std::string(6 - verdict.size(), ' ') + name + "  " +
            Printable(finding.found) + '\n';
    if (!finding.fix.empty()) text += std::string(width + 8, ' ') + "-> " + finding.fix + '\n';
  }
  return text;
}

Json ToJson(const std::vector<Finding>& findings) {
  Json list = Json::array();
  for (const Finding& finding : findings) {
    list.push_back(Json{{"check", finding.check},
                        {"verdict", Name(finding.verdict)},
                        {"found", finding.found},
                        {"fix", finding.fix}});
  }
  return Json{{"ok", !AnyFailed(findings)}, {"findings", std::move(list)}};
}

}  // namespace hatchery::cli
