// Context ids: the addresses by which the host reaches guests over vsock(7).
//
// The kernel keeps them. Whoever has /dev/vhost-vsock open asks for one and has it alone, on the
// whole host, until the last descriptor of that open file is closed. A VM's is taken before its
// VMM starts, which inherits the descriptor: it needs no right to the device, and the id is free
// again when the VMM has ended, however it ends. Nothing here keeps any state.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "base/fd.h"
#include "base/status.h"

namespace hatchery::hypervisor::qemu {

// What guests may have: 0, 1 and 2 are the hypervisor, the local host and the host, 0xffffffff is
// any (vsock(7)). The upper half is left to others.
inline constexpr std::uint32_t kFirstGuestCid = 3;
inline constexpr std::uint32_t kLastGuestCid = 0x7fffffff;
constexpr bool IsGuestCid(std::uint32_t cid) {
  return cid >= kFirstGuestCid && cid <= kLastGuestCid;
}

// How many ids in a row may be taken before there is said to be none.
inline constexpr std::uint32_t kCidTries = 1024;

// The device, as this uses it; tests have one of their own. All three may be called from any
// thread and answer at once.
struct VhostVsock {
  std::function<Result<UniqueFd>()> open;
  // Gives the open `device` this id. 0, or an errno: EADDRINUSE when another has it.
  std::function<int(int device, std::uint32_t cid)> set_guest_cid;
  // Any number: where the search for a free id begins.
  std::function<std::uint32_t()> draw;
};

// The kernel's.
VhostVsock KernelVhostVsock(std::filesystem::path device = "/dev/vhost-vsock");

struct ReservedCid {
  UniqueFd device;  // it is reserved as long as this, or a copy in a VMM, is open
  std::uint32_t cid = 0;
};

// An id that nobody else on this host has. Begins at a drawn place, so that the id of a VM that has
// ended is not soon another's: a client that is late finds nobody. kResourceExhausted when
// kCidTries in a row are taken; else what the kernel says against the device.
Result<ReservedCid> ReserveCid(const VhostVsock& vhost);

// `vhost`, if VMs can have ids of it here: it can be opened and gives one, which is let go of
// again. Null otherwise, as where the kernel has no vhost-vsock.
std::shared_ptr<const VhostVsock> IfUsable(VhostVsock vhost);

}  // namespace hatchery::hypervisor::qemu
