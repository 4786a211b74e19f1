// The signals by which a pretended QEMU is made to misbehave.
#pragma once

#include <csignal>

namespace hatchery::torture {

inline int AgentGarbageSignal() { return SIGRTMIN + 1; }
inline int MonitorGarbageSignal() { return SIGRTMIN + 2; }
inline int AgentSilentSignal() { return SIGRTMIN + 3; }
inline int AgentSpeaksSignal() { return SIGRTMIN + 4; }

}  // namespace hatchery::torture
