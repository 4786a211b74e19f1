// On whose behalf something is done: what the edge found out about who calls, and what follows from
// it inside.
#pragma once

#include <optional>
#include <string>

#include "base/process.h"

namespace hatchery::cache {

struct Caller {
  // Whose VMs it acquires and may touch: "uid:1000", "tls:ci-runner". Empty: nobody's in
  // particular, as of daemons that knew no tenants. No '/', no control character, at most 127
  // bytes.
  std::string tenant;
  // May administer the service: sees and touches every tenant's VMs.
  bool administers = true;
  // The process at the other end of the unix socket, as the kernel says. Absent over TCP, and when
  // it had ended before it could be looked at.
  std::optional<ProcessIdentity> process;

  bool MaySee(const std::string& other_tenant) const {
    return administers || tenant == other_tenant;
  }
};

}  // namespace hatchery::cache
