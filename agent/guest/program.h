// The agent as a program: its command line, and whether it is the guest's first process. It is all
// that main() is, so that a test's agent differs from hatchery-agent in what it offers and no more.
#pragma once

#include "agent/guest/services.h"

namespace hatchery::agent::guest {

// Runs until it is told to end, as process 1 for ever. Returns what main() has to.
int RunProgram(int argc, char** argv, Offer offer);

}  // namespace hatchery::agent::guest
