#include "image/initramfs.h"

#include <array>
#include <set>
#include <string_view>
#include <utility>

#include "base/files.h"
#include "image/cpio.h"
#include "image/modules.h"

namespace hatchery::image {

namespace {

// The agent reaches the host by a virtio-serial port or by vsock; virtio-rng feeds the generator.
// In the order in which they load where nothing else decides.
constexpr std::array<std::string_view, 10> kModules = {
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_console",
    "virtio-rng",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
};

constexpr Bytes kMaxProgram = Bytes::MiB(64);

constexpr std::string_view kPasswd =
    "root:x:0:0:root:/root:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
constexpr std::string_view kGroup =
    "root:x:0:\n"
    "tty:x:5:\n"
    "nogroup:x:65534:\n";
constexpr std::string_view kHosts =
    "127.0.0.1 localhost\n"
    "::1 localhost\n";

// The machine as it is before the agent mounts anything.
std::vector<CpioEntry> Skeleton() {
  std::vector<CpioEntry> entries;
  for (const char* path : {"bin", "dev", "etc", "etc/hatchery", "lib", "lib/modules", "mnt", "proc",
                           "run", "sys", "usr", "var"}) {
    entries.push_back(Directory(path));
  }
  entries.push_back(Directory("root", 0700));
  entries.push_back(Directory("tmp", 01777));
  // Scripts name their interpreters by these.
  entries.push_back(Symlink("sbin", "bin"));
  entries.push_back(Symlink("usr/bin", "../bin"));
  entries.push_back(Symlink("usr/sbin", "../bin"));
  // The kernel opens the console for /init before anything is mounted.
  entries.push_back(CharacterDevice("dev/console", 0600, 5, 1));
  entries.push_back(CharacterDevice("dev/null", 0666, 1, 3));
  entries.push_back(File("etc/passwd", std::string(kPasswd)));
  entries.push_back(File("etc/group", std::string(kGroup)));
  entries.push_back(File("etc/hosts", std::string(kHosts)));
  entries.push_back(File("etc/hostname", "hatchery\n"));
  // Empty: a clone gets its own on assignment.
  entries.push_back(File("etc/machine-id", "", 0444));
  return entries;
}

// With the folders above it that are not there yet.
void AddWithFolders(std::vector<CpioEntry>& entries, std::set<std::string>& folders,
                    CpioEntry entry) {
  for (auto slash = entry.path.find('/'); slash != std::string::npos;
       slash = entry.path.find('/', slash + 1)) {
    std::string folder = entry.path.substr(0, slash);
    if (folders.insert(folder).second) entries.push_back(Directory(std::move(folder)));
  }
  entries.push_back(std::move(entry));
}

Result<std::vector<std::string>> ModulesInOrder(const fs::path& modules_dir) {
  ASSIGN_OR_RETURN(const std::string dep, ReadFile(modules_dir / "modules.dep"));
  ASSIGN_OR_RETURN(const std::string builtin, ReadFile(modules_dir / "modules.builtin"));
  ASSIGN_OR_RETURN(const ModuleIndex index, ParseModuleIndex(dep, builtin));
  return LoadOrder(index, kModules);
}

Result<void> AddModules(std::vector<CpioEntry>& entries, const InitramfsParts& parts) {
  std::set<std::string> folders = {"lib", "lib/modules"};
  ASSIGN_OR_RETURN(const auto order, ModulesInOrder(parts.modules_dir));
  const std::string root = "lib/modules/" + parts.kernel_version + "/";
  std::string list;
  for (const auto& path : order) {
    if (!path.ends_with(".ko")) {
      return Unimplemented("kernel module " + path +
                           " is compressed, and the agent loads plain ones only; choose a kernel "
                           "package of Debian 12");
    }
    ASSIGN_OR_RETURN(std::string content, ReadFile(parts.modules_dir / path, kMaxProgram));
    AddWithFolders(entries, folders, File(root + path, std::move(content)));
    list += "/" + root + path + "\n";
  }
  entries.push_back(File("etc/hatchery/modules", std::move(list)));
  return {};
}

}  // namespace

Result<std::string> MakeInitramfs(const InitramfsParts& parts) {
  std::vector<CpioEntry> entries = Skeleton();
  ASSIGN_OR_RETURN(std::string agent, ReadFile(parts.agent, kMaxProgram));
  entries.push_back(File("init", std::move(agent), 0755));
  ASSIGN_OR_RETURN(std::string busybox, ReadFile(parts.busybox, kMaxProgram));
  entries.push_back(File("bin/busybox", std::move(busybox), 0755));
  for (const auto& applet : parts.applets) {
    if (applet != "busybox") entries.push_back(Symlink("bin/" + applet, "busybox"));
  }
  RETURN_IF_ERROR(AddModules(entries, parts));
  return PackCpio(std::move(entries));
}

}  // namespace hatchery::image
