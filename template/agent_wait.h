// Waiting for the agent of a guest that boots.
#pragma once

#include <memory>
#include <string>

#include "agent/client/client.h"
#include "base/task.h"
#include "hypervisor/driver.h"

namespace hatchery::tmpl {

// Connects to the agent of a VM that was started and returns once it has answered a Check. Ends at
// once when the VM ends (kFailedPrecondition with its reason), at `deadline` (kDeadlineExceeded) or
// when cancelled; but for the latter the error holds the tail of the guest's console. The VM is
// left as it is. Loop thread only.
Task<std::unique_ptr<agent::Client>> WaitForAgent(hypervisor::Vm& vm, agent::Connector& connector,
                                                  Deadline deadline);

// The last 2 KiB that the guest printed, fit for an error message: control characters are dots.
std::string PrintableConsoleTail(const hypervisor::Vm& vm);

}  // namespace hatchery::tmpl
