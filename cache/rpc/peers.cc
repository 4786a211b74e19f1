#include "cache/rpc/peers.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <utility>

namespace hatchery::cache::rpc {

namespace {

// The kernel copies the table of descriptors, up to the highest, for each process that we start:
// half a MiB at this many.
constexpr rlim_t kHighestNumber = 65536;

struct Range {
  int first = 0, end = 0;
};
// Asked for each time: an operator may change the limit of a running process.
Range NumbersToUse() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = kHighestNumber;
  const int end = static_cast<int>(std::min(limit.rlim_cur, kHighestNumber));
  return {end / 2, end};
}

Result<std::vector<gid_t>> GroupsOf(int connection) {
  std::vector<gid_t> groups(64);
  for (;;) {
    auto size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    const bool read =
        ::getsockopt(connection, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) == 0;
    if (!read && errno != ERANGE) return ErrnoError(errno, "asking for a client's groups");
    groups.resize(size / sizeof(gid_t));  // or what it takes
    if (read) return groups;
  }
}

// Nobody holds the other end any more.
bool HungUp(int connection) {
  pollfd poll{.fd = connection, .events = 0, .revents = 0};
  return ::poll(&poll, 1, 0) > 0 && (poll.revents & (POLLHUP | POLLERR)) != 0;
}

}  // namespace

Result<UnixPeer> PeerOf(int connection) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return ErrnoError(errno, "asking for a client's credentials");
  }
  UnixPeer peer{.uid = credentials.uid, .gid = credentials.gid};
  ASSIGN_OR_RETURN(peer.groups, GroupsOf(connection));
  if (credentials.pid > 0) {
    const auto process = IdentifyProcess(credentials.pid);
    if (process && !HungUp(connection)) peer.process = *process;
  }
  return peer;
}

Result<UniqueFd> Peers::Renumber(UniqueFd connection) {
  const Range range = NumbersToUse();
  if (next_ < range.first || next_ >= range.end) next_ = range.first;
  // The lowest free number from `next_` on; at the range's end, from its beginning.
  UniqueFd moved(::fcntl(connection.get(), F_DUPFD_CLOEXEC, next_));
  if (!moved || moved.get() >= range.end) {
    moved.Reset(::fcntl(connection.get(), F_DUPFD_CLOEXEC, range.first));
  }
  if (!moved) return ErrnoError(errno, "no descriptor is left for a client");
  next_ = moved.get() + 1;
  return moved;
}

Result<UniqueFd> Peers::Admit(UniqueFd connection) {
  ASSIGN_OR_RETURN(UnixPeer peer, PeerOf(connection.get()));
  ASSIGN_OR_RETURN(UniqueFd moved, Renumber(std::move(connection)));
  const std::lock_guard lock(mutex_);
  peers_[moved.get()] = std::move(peer);
  return moved;
}

Result<UnixPeer> Peers::Find(std::string_view name) const {
  constexpr std::string_view kPrefix = "fd:";
  int number = -1;
  if (name.starts_with(kPrefix)) {
    (void)std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), number);
  }
  const std::lock_guard lock(mutex_);
  const auto found = peers_.find(number);
  if (found == peers_.end()) {
    return PermissionDenied("nothing is known of who calls, on " + std::string(name));
  }
  return found->second;
}

}  // namespace hatchery::cache::rpc
