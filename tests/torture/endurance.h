// A long open-loop load on a service in peace: acquires that are due on a schedule, each released
// at once; latencies and what the daemon takes of its host, minute by minute.
#pragma once

#include "tests/torture/run.h"

namespace hatchery::torture {

// For options.length at 80% of the rate that it finds the service to sustain. Prints a line a
// minute; returns what was found wrong.
std::vector<std::string> Endure(const RunOptions& options);

}  // namespace hatchery::torture
