// Starts one command with pipes, the way Exec needs it. vfork semantics (posix_spawn), no shell.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/status.h"
#include "hatchery/agent/v1/guest.pb.h"

namespace hatchery::agent::guest {

// A command that runs in a session and process group of its own, whose number is `pid`.
struct Child {
  pid_t pid = -1;
  UniqueFd pidfd;
  // Our ends, non-blocking. `in` is invalid when there is nothing to feed: stdin is then /dev/null.
  UniqueFd in, out, err;
};

// argv[0] without a slash is looked up in the PATH of the command's own environment, which is the
// request's over the agent's default PATH and HOME. kNotFound: no such program, or no such cwd;
// kPermissionDenied: not executable; kInvalidArgument: an empty argv, a zero byte, a list too long.
Result<Child> SpawnCommand(const v1::ExecRequest& request);

}  // namespace hatchery::agent::guest
