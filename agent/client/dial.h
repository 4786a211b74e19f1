// Connecting to an agent's endpoint.
#pragma once

#include "base/endpoint.h"
#include "base/fd.h"
#include "base/task.h"

namespace hatchery::agent {

// A connected, non-blocking stream socket that carries the agent's bytes and nothing else: the
// hybrid vsock's greeting has been exchanged. Loop thread only. kUnavailable when nobody listens or
// the VMM refuses the port; kDeadlineExceeded, kCancelled.
Task<UniqueFd> Dial(Endpoint endpoint, Deadline deadline);

}  // namespace hatchery::agent
