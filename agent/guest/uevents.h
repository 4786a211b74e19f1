// The kernel's announcements of devices that come, go and change.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "agent/guest/event_loop.h"
#include "base/fd.h"

namespace hatchery::agent::guest {

struct Uevent {
  std::string action;     // "add", "remove", "change", "online", …; empty: some were lost
  std::string subsystem;  // "cpu", "memory", "virtio-ports", …
  bool operator==(const Uevent&) const = default;
};

// One message of the kernel's: "action@path", then "NAME=value", each ended by a zero byte.
Uevent ParseUevent(std::string_view message);

// Loop thread only; destroy it before the loop.
class UeventSource {
 public:
  // An error where the kernel lets nobody listen, as in some containers.
  static Result<std::unique_ptr<UeventSource>> Create(EventLoop& loop,
                                                      std::function<void(const Uevent&)> handler);
  ~UeventSource();

 private:
  UeventSource(EventLoop& loop, UniqueFd fd, std::function<void(const Uevent&)> handler)
      : loop_(loop), fd_(std::move(fd)), handler_(std::move(handler)) {}
  void OnReadable();

  EventLoop& loop_;
  UniqueFd fd_;
  std::function<void(const Uevent&)> handler_;
  EventLoop::WatchId watch_ = 0;
};

}  // namespace hatchery::agent::guest
