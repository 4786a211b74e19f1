// Who is at the other end of each connection of the unix socket.
//
// gRPC tells a handler of its connection only "fd:N", the descriptor's number. The kernel gives out
// a number again as soon as it is free, while a late handler of the connection that had it may
// still ask. So each accepted socket is moved to the next of ever higher numbers, which go round
// within a range: a number comes again only after tens of thousands of connections (half of the
// process's limit on descriptors, where that is less than 65536). Entries are values and hold
// nothing open; a number's next connection overwrites its entry.
//
// What is trusted: the kernel's word, taken when the connection is accepted, on who connected. A
// process that hands its connected socket to another speaks for it; so does one that connects first
// and changes its user afterwards. The pid is a name that may be another's by the time we look; it
// is believed only if the other end is still open after the process has been looked at, so a
// process that connects and ends is absent. One that connects, leaves its socket to a child and
// ends, all before it is accepted, can have its place taken by another with the same pid: what is
// bound to "its" process then ends with a stranger's. That harms nobody but itself.
//
// Thread-safe: accepted on the loop, looked up on gRPC's threads.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/fd.h"
#include "base/status.h"
#include "cache/access.h"

namespace hatchery::cache::rpc {

class Peers {
 public:
  // The connection under its number for good, whose peer is known from here on. On failure it is
  // closed: kResourceExhausted when no number is left.
  Result<UniqueFd> Admit(UniqueFd connection);

  // The peer of the connection that gRPC calls `name`, "fd:N". kPermissionDenied for anything else,
  // so that what was not accepted through Admit() gets no further.
  Result<UnixPeer> Find(std::string_view name) const;

 private:
  Result<UniqueFd> Renumber(UniqueFd connection);

  int next_ = 0;  // loop only
  mutable std::mutex mutex_;
  std::unordered_map<int, UnixPeer> peers_;  // guarded by mutex_
};

// What the kernel says of the other end of a connected unix socket.
Result<UnixPeer> PeerOf(int connection);

}  // namespace hatchery::cache::rpc
