// The duties of process 1, for guests in which the agent is the only init.
//
// Process 1 itself only sets up the machine and reaps; the agent runs as its child, so that a bug
// in the agent ends in a message and a power-off instead of a kernel panic, and orphans are never
// confused with commands that somebody waits for.
#pragma once

#include <functional>

namespace hatchery::agent::guest {

// Mounts what a system needs, loads the modules of /etc/hatchery/modules in order, brings up `lo`,
// runs `agent` in a child and reaps until it ends, which it should not: then says why on the
// console and powers the machine off. Never returns.
[[noreturn]] void RunAsInit(const std::function<int()>& agent);

}  // namespace hatchery::agent::guest
