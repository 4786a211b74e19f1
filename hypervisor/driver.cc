#include "hypervisor/driver.h"

namespace hatchery::hypervisor {

std::string_view Name(VmState state) {
  switch (state) {
    case VmState::kCreated: return "created";
    case VmState::kLoading: return "loading";
    case VmState::kRunning: return "running";
    case VmState::kPaused: return "paused";
    case VmState::kFailed: return "failed";
    case VmState::kHandedOver: return "handed over";
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

Task<std::unique_ptr<Vm>> Driver::Adopt(std::string handle, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(auto vm, Find(handle));
  auto reached = co_await vm->Reconnect(deadline);
  if (!reached && reached.error().code == Code::kCancelled) {
    co_return std::unexpected(reached.error());
  }
  if (vm->state() == VmState::kStopped) co_return NotFound("the VMM ended while it was taken over");
  co_return vm;
}

}  // namespace hatchery::hypervisor
