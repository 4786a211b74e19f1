#include "agent/guest/init.h"

#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "agent/guest/system.h"
#include "base/fd.h"
#include "base/files.h"

namespace hatchery::agent::guest {

namespace {

constexpr const char* kModuleList = "/etc/hatchery/modules";

void Say(const std::string& message) {
  std::fprintf(stderr, "hatchery-agent: %s\n", message.c_str());
}

[[noreturn]] void PowerOffBecause(const std::string& reason) {
  Say(reason + "; powering off");
  ::sync();
  ::reboot(RB_POWER_OFF);
  ::reboot(RB_AUTOBOOT);
  ::_exit(1);  // the kernel panics, and says so
}

struct Mount {
  const char* type;
  const char* path;
  unsigned long flags;
  const char* options;
  bool required;
};

constexpr unsigned long kSafe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
constexpr Mount kMounts[] = {
    {"proc", "/proc", kSafe, nullptr, true},
    {"sysfs", "/sys", kSafe, nullptr, true},
    {"devtmpfs", "/dev", MS_NOSUID, "mode=0755", true},
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666", false},
    {"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777", false},
    {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755", true},
    {"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777", false},
    {"cgroup2", "/sys/fs/cgroup", kSafe, nullptr, false},
};

void MountAll() {
  for (const Mount& mount : kMounts) {
    ::mkdir(mount.path, 0755);
    const int failed =
        ::mount(mount.type, mount.path, mount.type, mount.flags, mount.options) == 0 ? 0 : errno;
    // EBUSY: the kernel (CONFIG_DEVTMPFS_MOUNT) or an earlier init has done it.
    if (failed == 0 || failed == EBUSY || !mount.required) continue;
    PowerOffBecause(std::string("mounting ") + mount.path + ": " + std::strerror(failed));
  }
}

// An initramfs without /dev/console starts us without descriptors 0 to 2.
void OpenConsole() {
  if (::fcntl(STDERR_FILENO, F_GETFD) >= 0) return;
  const int fd = ::open("/dev/console", O_RDWR | O_NOCTTY);
  if (fd < 0) return;
  for (const int target : {0, 1, 2}) ::dup2(fd, target);
  if (fd > 2) ::close(fd);
}

void LinkDescriptors() {
  (void)!::symlink("/proc/self/fd", "/dev/fd");
  (void)!::symlink("/proc/self/fd/0", "/dev/stdin");
  (void)!::symlink("/proc/self/fd/1", "/dev/stdout");
  (void)!::symlink("/proc/self/fd/2", "/dev/stderr");
}

// A module that fails is named and skipped: it may be one this machine does not need.
void LoadModules() {
  const auto list = ReadFile(kModuleList, Bytes::KiB(64));
  if (!list) return;
  std::string_view rest = *list;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string path(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (path.empty() || path.starts_with('#')) continue;
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd && ::syscall(SYS_finit_module, fd.get(), "", 0) == 0) continue;
    if (errno != EEXIST) Say("loading " + path + ": " + std::strerror(errno));
  }
}

void BringUpLoopback() {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", sizeof(request.ifr_name) - 1);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (!fd || ::ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) Say("no loopback interface");
}

void SetUpKernel() {
  GuestSystem system;
  // The kernel can online memory by itself when it appears: a round trip less. As movable, or it
  // could not be unplugged again.
  (void)system.WriteKernelFile("/sys/devices/system/memory/auto_online_blocks", "online_movable");
  if (const auto hostname = system.Read("/etc/hostname")) (void)system.SetHostname(*hostname);
}

}  // namespace

void RunAsInit(const std::function<int()>& agent) {
  ::umask(022);
  MountAll();
  OpenConsole();
  LinkDescriptors();
  ::reboot(RB_DISABLE_CAD);  // Ctrl-Alt-Del becomes a SIGINT, which process 1 ignores
  ::setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  ::setenv("HOME", "/root", 1);
  LoadModules();
  BringUpLoopback();
  SetUpKernel();

  // fork, not posix_spawn: there is one thread, next to no memory, and no program to execute.
  const pid_t child = ::fork();
  if (child < 0) PowerOffBecause(std::string("starting the agent: ") + std::strerror(errno));
  if (child == 0) {
    ::setsid();
    ::_exit(agent());
  }
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, 0);
    if (ended == child) {
      PowerOffBecause(WIFSIGNALED(status)
                          ? "the agent was killed by signal " + std::to_string(WTERMSIG(status))
                          : "the agent ended with code " + std::to_string(WEXITSTATUS(status)));
    }
    if (ended < 0 && errno != EINTR) PowerOffBecause("the agent is gone");
  }
}

}  // namespace hatchery::agent::guest
