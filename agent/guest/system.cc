#include "agent/guest/system.h"

#include <fcntl.h>
#include <linux/random.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/files.h"

namespace hatchery::agent::guest {

std::filesystem::path GuestSystem::Path(std::string_view path) const {
  while (path.starts_with('/')) path.remove_prefix(1);
  return root_ / path;
}

Result<std::string> GuestSystem::Read(std::string_view path) const {
  ASSIGN_OR_RETURN(std::string text, ReadFile(Path(path), Bytes::KiB(64)));
  text.erase(text.find_last_not_of(" \n\t") + 1);
  return text;
}

Result<void> GuestSystem::WriteKernelFile(std::string_view path, std::string_view text) {
  UniqueFd fd(::open(Path(path).c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return ErrnoError(errno, "opening " + std::string(path));
  if (::write(fd.get(), text.data(), text.size()) < 0) {
    return ErrnoError(errno, "writing '" + std::string(text) + "' to " + std::string(path));
  }
  return {};
}

Result<UniqueFd> GuestSystem::OpenFile(std::string_view path) const {
  const std::filesystem::path full = Path(path);
  constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC;
  UniqueFd fd(::open(full.c_str(), kFlags, 0644));
  if (!fd && errno == ENOENT) {
    RETURN_IF_ERROR(MakeDirectories(full.parent_path()));
    fd = UniqueFd(::open(full.c_str(), kFlags, 0644));
  }
  if (!fd) return ErrnoError(errno, "opening " + std::string(path));
  return fd;
}

Result<void> GuestSystem::Reseed(std::string_view seed) {
  if (!random_) {
    random_ = UniqueFd(::open(Path("/dev/urandom").c_str(), O_RDWR | O_CLOEXEC));
    if (!random_) return ErrnoError(errno, "opening /dev/urandom");
  }
  // struct rand_pool_info: bits credited, bytes given, the bytes.
  std::string pool(sizeof(rand_pool_info) + seed.size(), '\0');
  const rand_pool_info info{.entropy_count = static_cast<int>(seed.size() * 8),
                            .buf_size = static_cast<int>(seed.size())};
  std::memcpy(pool.data(), &info, sizeof(info));
  std::memcpy(pool.data() + sizeof(info), seed.data(), seed.size());
  if (::ioctl(random_.get(), RNDADDENTROPY, pool.data()) != 0) {
    return ErrnoError(errno, "adding entropy");
  }
  // Without it, the generator would go on with its old key for up to a minute.
  if (::ioctl(random_.get(), RNDRESEEDCRNG) != 0) {
    return ErrnoError(errno, "reseeding the generator");
  }
  return {};
}

Result<void> GuestSystem::SetClock(std::int64_t unix_ns) {
  constexpr std::int64_t kNsPerSecond = 1'000'000'000;
  const timespec time{.tv_sec = unix_ns / kNsPerSecond, .tv_nsec = unix_ns % kNsPerSecond};
  if (::clock_settime(CLOCK_REALTIME, &time) != 0) return ErrnoError(errno, "setting the clock");
  return {};
}

Result<void> GuestSystem::SetHostname(const std::string& name) {
  if (::sethostname(name.data(), name.size()) != 0) {
    return ErrnoError(errno, "setting the hostname");
  }
  return {};
}

std::string GuestSystem::Hostname() const {
  utsname names{};
  return ::uname(&names) == 0 ? names.nodename : "";
}

Result<void> GuestSystem::BindOver(std::string_view source, std::string_view target) {
  if (::mount(Path(source).c_str(), Path(target).c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return ErrnoError(errno, "mounting over " + std::string(target));
  }
  return {};
}

void GuestSystem::Sync() { ::sync(); }

void GuestSystem::Settle() {
  // Nothing tells when it is done: page reclaim and RCU callbacks take some 100 ms under emulation.
  constexpr timespec kTime{.tv_sec = 0, .tv_nsec = 500'000'000};
  ::nanosleep(&kTime, nullptr);
}

Result<void> GuestSystem::PowerOff() {
  // systemd's own request for poweroff.target, documented in systemd(1): services end in order.
  if (::access("/run/systemd/system", F_OK) == 0 && ::kill(1, SIGRTMIN + 4) == 0) return {};
  ::sync();
  ::reboot(RB_POWER_OFF);
  return ErrnoError(errno, "powering off");
}

}  // namespace hatchery::agent::guest
