#include "hypervisor/qemu/vsock.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/ids.h"

namespace hatchery::hypervisor::qemu {

namespace {

// VHOST_VSOCK_SET_GUEST_CID of linux/vhost.h, which is no C++.
constexpr unsigned long kSetGuestCid = _IOW(0xAF, 0x60, std::uint64_t);
constexpr std::uint32_t kGuestCids = kLastGuestCid - kFirstGuestCid + 1;

int SetGuestCid(int device, std::uint32_t cid) {
  const std::uint64_t wide = cid;
  return ::ioctl(device, kSetGuestCid, &wide) == 0 ? 0 : errno;
}

std::uint32_t Draw() {
  std::uint32_t number = 0;
  const std::string bytes = RandomBytes(sizeof(number));
  std::memcpy(&number, bytes.data(), sizeof(number));
  return number;
}

}  // namespace

VhostVsock KernelVhostVsock(std::filesystem::path device) {
  return {.open = [device = std::move(device)]() -> Result<UniqueFd> {
            UniqueFd fd(::open(device.c_str(), O_RDWR | O_CLOEXEC));
            if (!fd) return ErrnoError(errno, "opening " + device.string());
            return fd;
          },
          .set_guest_cid = SetGuestCid,
          .draw = Draw};
}

Result<ReservedCid> ReserveCid(const VhostVsock& vhost) {
  ReservedCid reserved;
  ASSIGN_OR_RETURN(reserved.device, vhost.open());
  std::uint32_t offset = vhost.draw() % kGuestCids;
  for (std::uint32_t tries = 0; tries < kCidTries; ++tries) {
    reserved.cid = kFirstGuestCid + offset;
    const int error = vhost.set_guest_cid(reserved.device.get(), reserved.cid);
    if (error == 0) return reserved;
    if (error != EADDRINUSE) {
      return ErrnoError(error, "asking for the vsock context id " + std::to_string(reserved.cid));
    }
    offset = (offset + 1) % kGuestCids;
  }
  return ResourceExhausted("no vsock context id is free: " + std::to_string(kCidTries) +
                           " in a row are taken; end VMs, or set [qemu] vsock = \"never\"");
}

std::shared_ptr<const VhostVsock> IfUsable(VhostVsock vhost) {
  if (!ReserveCid(vhost)) return nullptr;
  return std::make_shared<const VhostVsock>(std::move(vhost));
}

}  // namespace hatchery::hypervisor::qemu
