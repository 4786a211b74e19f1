#include "hypervisor/isolation.h"

#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <sstream>

#include "base/files.h"
#include "base/log.h"

namespace hatchery::hypervisor {

namespace {

// A VMM has some 30 descriptors, its guest's disks and channels included.
constexpr std::uint64_t kOpenFiles = 1024;
// For QEMU's own threads, beside the guest's vCPUs.
constexpr std::uint32_t kOwnCpuPercent = 50;
constexpr const char* kKvm = "/dev/kvm";

// The same for the same state directory, now and later; a name of a folder.
std::string Tag(const std::string& owner) {
  std::uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (const char c : owner) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string tag;
  for (int i = 0; i < 8; ++i, hash >>= 4) tag += kDigits[hash & 0xf];
  return tag;
}

std::optional<uid_t> UidOf(pid_t pid) {
  const auto status = ReadFile("/proc/" + std::to_string(pid) + "/status");
  if (!status) return {};
  const auto at = status->find("\nUid:");
  if (at == std::string::npos) return {};
  std::istringstream text(status->substr(at + 5));
  uid_t uid = 0;
  if (!(text >> uid)) return {};
  return uid;
}

}  // namespace

Result<std::shared_ptr<Isolation>> Isolation::Create(const IsolationSettings& settings) {
  auto isolation = std::make_shared<Isolation>();
  isolation->settings_ = settings;
  const std::string tag = Tag(settings.owner);
  ASSIGN_OR_RETURN(const std::string passwd, ReadFile("/etc/passwd"));
  ASSIGN_OR_RETURN(const auto range, ParseUids(settings.uids, ::geteuid(), passwd));
  Result<void> may_give;
  if (range) {
    ASSIGN_OR_RETURN(const std::string status, ReadFile("/proc/self/status"));
    for (const char* map : {"/proc/self/uid_map", "/proc/self/gid_map"}) {
      ASSIGN_OR_RETURN(const std::string ids, ReadFile(map));
      if (may_give) may_give = MayGive(*range, ids, status);
    }
    if (!may_give && settings.uids != "auto") {
      return Annotate(may_give.error(), "[vmm] uids '" + settings.uids + "'");
    }
  }
  if (range && !may_give) {
    isolation->without_uids_ += ": " + may_give.error().message;
    log::Warning({}, "VMMs run as the daemon: " + may_give.error().message);
  } else if (range) {
    isolation->uids_.emplace(*range, std::hash<std::string>()(tag));
    struct stat kvm{};
    constexpr mode_t kReadWrite = 06;
    if (::stat(kKvm, &kvm) == 0 && ((kvm.st_mode >> 3) & kReadWrite) == kReadWrite &&
        kvm.st_gid != 0) {
      isolation->kvm_group_ = kvm.st_gid;
    }
  }
  if (settings.cgroup == "none") return isolation;
  auto opened = [&]() -> Result<Cgroups> {
    ASSIGN_OR_RETURN(std::string own, ReadFile("/proc/self/cgroup"));
    return Cgroups::Open(
        {.own = std::move(own), .setting = settings.cgroup, .parent = "hatchery-" + tag});
  }();
  if (opened) {
    isolation->cgroups_ = *std::move(opened);
  } else {
    isolation->without_cgroups_ = "no cgroups: " + opened.error().message;
    log::Warning({}, "VMMs are not limited by control groups: " + opened.error().message);
  }
  return isolation;
}

Isolation::~Isolation() {
  RetryRemovals();
  if (cgroups_) cgroups_->RemoveParent();
}

std::string Isolation::Describe() const {
  std::string text = without_uids_;
  if (uids_) {
    text = "own uid each (" + std::to_string(uids_->range().first) + "-" +
           std::to_string(uids_->range().last) + ")";
  }
  std::error_code ignored;
  if (!MayUseKvm() && fs::exists(kKvm, ignored)) {
    text += ", no KVM (/dev/kvm has no group that may use it)";
  }
  if (!cgroups_) return text + ", " + without_cgroups_;
  return text + ", cgroup v" + (cgroups_->version() == Cgroups::Version::kV1 ? "1" : "2") + " (" +
         cgroups_->controllers() + ")";
}

Result<Cell> Isolation::Enclose(const VmConfig& config) {
  Cell cell;
  const auto enclose = [&]() -> Result<void> {
    if (uids_) {
      ASSIGN_OR_RETURN(cell.uid, uids_->Take());
      if (::chown(config.run_dir.c_str(), *cell.uid, *cell.uid) != 0 ||
          ::chmod(config.run_dir.c_str(), 0700) != 0) {
        return ErrnoError(errno, "giving " + config.run_dir.string() + " to its VM");
      }
    }
    if (cgroups_) {
      ASSIGN_OR_RETURN(cell.cgroup,
                       cgroups_->Create(config.id.str(),
                                        {.memory = config.max_memory + settings_.memory_overhead,
                                         .pids = settings_.pids,
                                         .cpu_percent = config.max_vcpus * 100 + kOwnCpuPercent}));
    }
    return {};
  };
  if (auto enclosed = enclose(); !enclosed) {
    Free(cell);
    return Annotate(enclosed.error(), "isolating VM " + config.id.str());
  }
  return cell;
}

void Isolation::Claim(const Cell& cell) {
  if (uids_ && cell.uid) uids_->Claim(*cell.uid);
}

void Isolation::Free(const Cell& cell) {
  if (uids_ && cell.uid) uids_->Free(*cell.uid);
  if (cell.cgroup.empty()) return;
  if (!RemoveCgroup(cell.cgroup)) leaving_.push_back(cell.cgroup);
}

void Isolation::Abandon(const Cell& cell, ProcessIdentity process) {
  if (uids_ && cell.uid) uids_->Abandon(*cell.uid, process);
}

Result<Isolation::Confined> Isolation::Confine(const Cell& cell) const {
  Confined confined;
  ASSIGN_OR_RETURN(confined.members, OpenMembers(cell.cgroup));
  Confinement& c = confined.confinement;
  for (const auto& member : confined.members) c.cgroups.push_back(member.get());
  // A guest's memory is not for a core file.
  c.core_size = 0;
  c.open_files = kOpenFiles;
  if (cell.uid) {
    c.ids = {.uid = *cell.uid, .gid = *cell.uid};
    if (kvm_group_) c.ids->groups.push_back(*kvm_group_);
    c.processes = settings_.pids;
  }
  return confined;
}

bool Isolation::MayUseKvm() const {
  struct stat kvm{};
  constexpr mode_t kReadWrite = 06;
  return !uids_ || kvm_group_ ||
         (::stat(kKvm, &kvm) == 0 && (kvm.st_mode & kReadWrite) == kReadWrite);
}

Result<void> Isolation::MayRead(const Cell& cell, int fd, const fs::path& path) const {
  if (!cell.uid) return {};
  // This thread's access to files becomes the VM's for a moment; nothing else of it changes.
  const auto our_group = ::setfsgid(*cell.uid);
  const auto we = ::setfsuid(*cell.uid);
  const auto opened = Reopen(fd, O_RDONLY);
  ::setfsuid(static_cast<uid_t>(we));
  ::setfsgid(static_cast<gid_t>(our_group));
  if (opened) return {};
  return MakeError(Code::kPermissionDenied,
                   path.string() + " cannot be read by uid " + std::to_string(*cell.uid) +
                       ", which its VMM runs as; make it readable for all (chmod a+r), or set "
                       "[vmm] uids to none");
}

bool Isolation::Vouches(pid_t pid) const {
  if (cgroups_) {
    const auto groups = ReadFile("/proc/" + std::to_string(pid) + "/cgroup");
    if (groups && cgroups_->Contains(*groups)) return true;
  }
  if (!uids_) return false;
  const auto uid = UidOf(pid);
  return uid && *uid >= uids_->range().first && *uid <= uids_->range().last;
}

void Isolation::RemoveGroups(const std::function<bool(const VmId&)>& keep) {
  RetryRemovals();
  if (!cgroups_) return;
  for (const auto& name : cgroups_->List()) {
    if (keep(VmId(name))) continue;
    const auto folders = cgroups_->Folders(name);
    if (std::ranges::find(leaving_, folders) != leaving_.end()) continue;
    log::Info({.vm = name}, "removing the control group of a VM that is gone");
    KillMembers(folders);
    if (!RemoveCgroup(folders)) leaving_.push_back(folders);
  }
}

void Isolation::RetryRemovals() {
  std::erase_if(leaving_, [](const auto& folders) { return RemoveCgroup(folders).has_value(); });
}

}  // namespace hatchery::hypervisor
