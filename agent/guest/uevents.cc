#include "agent/guest/uevents.h"

#include <linux/netlink.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace hatchery::agent::guest {

namespace {

constexpr unsigned kKernelGroup = 1;                // 2 is what udev sends on
constexpr std::size_t kMaxMessageBytes = 16 << 10;  // the kernel's own limit is 2 KiB + path

}  // namespace

Uevent ParseUevent(std::string_view message) {
  Uevent event;
  while (!message.empty()) {
    const std::size_t end = message.find('\0');
    const std::string_view field = message.substr(0, end);
    if (field.starts_with("ACTION=")) event.action = field.substr(7);
    if (field.starts_with("SUBSYSTEM=")) event.subsystem = field.substr(10);
    if (end == std::string_view::npos) break;
    message.remove_prefix(end + 1);
  }
  return event;
}

Result<std::unique_ptr<UeventSource>> UeventSource::Create(
    EventLoop& loop, std::function<void(const Uevent&)> handler) {
  UniqueFd fd(
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
  if (!fd) return ErrnoError(errno, "creating a uevent socket");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = kKernelGroup;
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return ErrnoError(errno, "listening to uevents");
  }
  std::unique_ptr<UeventSource> source(new UeventSource(loop, std::move(fd), std::move(handler)));
  UeventSource* self = source.get();
  ASSIGN_OR_RETURN(self->watch_, loop.Watch(self->fd_.get(), EPOLLIN,
                                            [self](std::uint32_t) { self->OnReadable(); }));
  return source;
}

UeventSource::~UeventSource() { loop_.Unwatch(watch_); }

void UeventSource::OnReadable() {
  std::array<char, kMaxMessageBytes> buffer;
  for (;;) {
    const ssize_t size = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    // The queue overflowed: whoever listens must look for himself.
    if (size < 0 && errno == ENOBUFS) {
      handler_(Uevent{});
      continue;
    }
    if (size <= 0) return;
    handler_(ParseUevent({buffer.data(), static_cast<std::size_t>(size)}));
  }
}

}  // namespace hatchery::agent::guest
