// File descriptors as values, and the small system calls around them.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace hatchery {

// Owns one file descriptor; closes it when destroyed. Every descriptor made here is close-on-exec.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }
  int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

// A new descriptor of the same open file.
Result<UniqueFd> Duplicate(int fd);

// A new open file (own offset) on what `fd` refers to, through /proc/self/fd; `flags` as for
// open(2).
Result<UniqueFd> Reopen(int fd, int flags);

// "/proc/self/fd/N": a path by which a process that inherits `fd` under its number opens the file.
std::filesystem::path ProcPath(int fd);

// A unix stream socket that listens at `path` with `mode`; a stale socket file is replaced. Clients
// may connect at once and wait in the backlog, also before anybody accepts. kInvalidArgument when
// the path does not fit a socket address (107 bytes).
Result<UniqueFd> ListenUnix(const std::filesystem::path& path, unsigned mode, int backlog = 16);

// A unix stream socket connected to `path`, non-blocking. Does not wait: a listener accepts at
// once or the call fails (kUnavailable when nobody listens, kNotFound when there is no file).
Result<UniqueFd> ConnectUnix(const std::filesystem::path& path);

inline constexpr std::size_t kMaxSentDescriptors = 32;

// Sends bytes over a unix socket, and copies of `descriptors` (kMaxSentDescriptors at most) with
// the first of them; `flags` as for sendmsg(2), which never raises SIGPIPE here. How many bytes
// went, or -1 with errno set.
ssize_t SendWithDescriptors(int socket, std::string_view bytes, std::span<const int> descriptors,
                            int flags = 0);

}  // namespace hatchery
