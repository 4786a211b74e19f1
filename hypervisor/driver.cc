#include "hypervisor/driver.h"

namespace hatchery::hypervisor {

std::string_view Name(VmState state) {
  switch (state) {
    case VmState::kCreated: return "created";
    case VmState::kLoading: return "loading";
    case VmState::kRunning: return "running";
    case VmState::kPaused: return "paused";
    case VmState::kFailed: return "failed";
    case VmState::kStopped: return "stopped";
  }
  return "unknown";
}

std::string_view Name(ExitReason::Kind kind) {
  switch (kind) {
    case ExitReason::Kind::kStopped: return "stopped";
    case ExitReason::Kind::kGuestOff: return "guest_off";
    case ExitReason::Kind::kGuestPanic: return "guest_panic";
    case ExitReason::Kind::kVmmExited: return "vmm_exited";
  }
  return "unknown";
}

}  // namespace hatchery::hypervisor
