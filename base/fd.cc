#include "base/fd.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace hatchery {

Result<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return ErrnoError(errno, "duplicating a file descriptor");
  return copy;
}

Result<UniqueFd> Reopen(int fd, int flags) {
  UniqueFd opened(::open(ProcPath(fd).c_str(), flags | O_CLOEXEC));
  if (!opened) return ErrnoError(errno, "reopening " + ProcPath(fd).string());
  return opened;
}

std::filesystem::path ProcPath(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

namespace {

Result<sockaddr_un> UnixAddress(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string& text = path.native();
  if (text.size() >= sizeof(address.sun_path)) {
    return MakeError(Code::kInvalidArgument, "socket path '" + text + "' is longer than " +
                                                 std::to_string(sizeof(address.sun_path) - 1) +
                                                 " bytes; choose a shorter state directory");
  }
  std::memcpy(address.sun_path, text.c_str(), text.size() + 1);
  return address;
}

}  // namespace

Result<UniqueFd> ListenUnix(const std::filesystem::path& path, unsigned mode, int backlog) {
  ASSIGN_OR_RETURN(sockaddr_un address, UnixAddress(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return ErrnoError(errno, "creating a unix socket");
  struct stat found{};
  if (::lstat(path.c_str(), &found) == 0 && !S_ISSOCK(found.st_mode)) {
    return FailedPrecondition(path.string() + " is there and is not a socket; choose another path");
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoError(errno, "removing the stale socket " + path.string());
  }
  // Until listen(2), nobody can connect: the mode is set before there is anything to reach.
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return ErrnoError(errno, "binding the socket " + path.string());
  }
  if (::chmod(path.c_str(), mode) != 0 || ::listen(fd.get(), backlog) != 0) {
    const int error = errno;
    ::unlink(path.c_str());
    return ErrnoError(error, "listening on the socket " + path.string());
  }
  return fd;
}

Result<UniqueFd> ConnectUnix(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(sockaddr_un address, UnixAddress(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return ErrnoError(errno, "creating a unix socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return ErrnoError(errno, "connecting to " + path.string());
  }
  return fd;
}

ssize_t SendWithDescriptors(int socket, std::string_view bytes, std::span<const int> descriptors,
                            int flags) {
  if (descriptors.size() > kMaxSentDescriptors) {
    errno = EINVAL;
    return -1;
  }
  iovec part{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxSentDescriptors * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  return ::sendmsg(socket, &message, flags | MSG_NOSIGNAL);
}

}  // namespace hatchery
