// How long a daemon takes from start to ready when its predecessor was killed among many VMs.
#pragma once

#include "tests/torture/run.h"

namespace hatchery::torture {

// Half of `vms` leased, half warm; `times` kills. Prints p50 and max; what was found wrong.
std::vector<std::string> MeasureRecovery(const RunOptions& options, unsigned vms, unsigned times);

}  // namespace hatchery::torture
