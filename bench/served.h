// What a client of the daemon sees: acquire, first command, refill, and what a pool costs. Each
// call is timed from before it is sent until its reply is here, over the unix socket.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "cmd/hatchery/client.h"

namespace hatchery::bench {

// Makes the default template of 256 MiB and one vCPU, without a pool.
Result<v1::Template> MakeTemplate(cli::Client& client);

struct PoolCost {
  double fill_seconds = 0;                 // from no VM to all warm
  std::vector<double> private_bytes = {};  // of each VM, all warm and idle
};
// Fills the pool to `size` and looks at each of its VMs.
Result<PoolCost> FillPool(cli::Client& client, std::uint32_t size);

struct AcquireTimes {  // seconds, one entry per acquire
  std::vector<double> acquire;
  std::vector<double> inside;       // the daemon's own count of the whole
  std::vector<double> personalize;  // the daemon's own count of that part
  std::vector<double> resize;       // likewise
  std::vector<double> refill;       // from the reply until another VM was warm in its place
  std::vector<double> first_exec;   // of /bin/true
};
// `warm_ups` and then `samples` acquires, one after the other, each with the pool of `pool` full
// and nothing else going on: neither the refill after the one before, nor the end of its VM. The
// warm-ups are left out of the answer. An acquire that the pool did not serve is an error.
Result<AcquireTimes> TimeAcquires(cli::Client& client, const v1::AcquireRequest& request,
                                  std::uint32_t pool, int warm_ups, int samples);

// The memory that a process holds in memfds, each counted once: the daemon's templates. Nothing
// when it cannot be read.
std::optional<double> MemfdBytes(pid_t pid);

}  // namespace hatchery::bench
