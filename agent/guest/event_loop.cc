#include "agent/guest/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace hatchery::agent::guest {

namespace {

constexpr int kEventsPerTurn = 64;

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::Create() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return ErrnoError(errno, "creating an epoll set");
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return ErrnoError(errno, "creating an eventfd");
  std::unique_ptr<EventLoop> loop(new EventLoop(std::move(epoll), std::move(wake)));
  EventLoop* self = loop.get();
  RETURN_IF_ERROR(loop->Watch(loop->wake_.get(), EPOLLIN, [self](std::uint32_t) {
    std::uint64_t count;
    (void)!::read(self->wake_.get(), &count, sizeof(count));
    self->RunPosted();
  }));
  return loop;
}

Result<EventLoop::WatchId> EventLoop::Watch(int fd, std::uint32_t events, Handler handler) {
  // Ids are never used again, so an event that is still in this turn's batch when its descriptor
  // is closed finds nobody, even if a new descriptor got the same number.
  const WatchId id = ++last_id_;
  epoll_event event{.events = events, .data = {.u64 = id}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return ErrnoError(errno, "watching a file descriptor");
  }
  watched_.emplace(id, Watched{fd, std::make_shared<Handler>(std::move(handler))});
  return id;
}

void EventLoop::Unwatch(WatchId id) {
  const auto it = watched_.find(id);
  if (it == watched_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, it->second.fd, nullptr);
  watched_.erase(it);
}

EventLoop::TimerId EventLoop::RunAt(Time when, std::function<void()> action) {
  const TimerId id{when, ++last_id_};
  timers_.emplace(id, std::move(action));
  return id;
}

void EventLoop::Post(std::function<void()> action) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(action));
  }
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));
}

void EventLoop::Stop() {
  Post([this] { stopped_ = true; });
}

int EventLoop::TimeoutMs() const {
  if (timers_.empty()) return -1;
  using std::chrono::milliseconds;
  const auto left = timers_.begin()->first.first - std::chrono::steady_clock::now();
  // Rounded up, or the last millisecond would be spent spinning.
  const auto rounded = std::chrono::ceil<milliseconds>(left);
  return static_cast<int>(
      std::clamp(rounded, milliseconds(0), milliseconds(std::chrono::hours(1))).count());
}

void EventLoop::RunPosted() {
  std::vector<std::function<void()>> posted;
  {
    const std::lock_guard lock(mutex_);
    posted.swap(posted_);
  }
  for (auto& action : posted) action();
}

void EventLoop::RunTimers() {
  const Time now = std::chrono::steady_clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    auto action = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    action();
  }
}

void EventLoop::Run() {
  std::array<epoll_event, kEventsPerTurn> events;
  while (!stopped_) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsPerTurn, TimeoutMs());
    for (int i = 0; i < count; ++i) {
      const WatchId id = events[i].data.u64;  // copied: epoll_event is packed
      const auto it = watched_.find(id);
      if (it == watched_.end()) continue;
      // Kept alive: a handler may unwatch itself.
      const std::shared_ptr<Handler> handler = it->second.handler;
      (*handler)(events[i].events);
    }
    RunTimers();
  }
}

}  // namespace hatchery::agent::guest
