// The client of an agent that is not connected yet, or any more: every call fails at once with
// kUnavailable and the reason. It lets a VM that cannot be reached be handled as any other.
#pragma once

#include <memory>
#include <string>

#include "agent/client/client.h"

namespace hatchery::agent {

// `reason` becomes the calls' message. Loop thread only, as every client.
std::unique_ptr<Client> MakeUnreachableClient(std::string reason);

}  // namespace hatchery::agent
