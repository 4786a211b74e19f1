// The agent's loop: epoll, timers, and work posted from other threads. One thread runs it; handlers
// run on that thread, one at a time, and must not block.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/status.h"

namespace hatchery::agent::guest {

// The guest's monotonic clock. It stands still while the VM is stopped or saved.
using Time = std::chrono::steady_clock::time_point;

class EventLoop {
 public:
  using WatchId = std::uint64_t;  // 0 is none
  using TimerId = std::pair<Time, std::uint64_t>;
  using Handler = std::function<void(std::uint32_t events)>;

  static Result<std::unique_ptr<EventLoop>> Create();

  // Calls `handler` with epoll's events of `fd`, which the caller keeps open until Unwatch().
  Result<WatchId> Watch(int fd, std::uint32_t events, Handler handler);
  // No call of the handler begins after this; 0 and unknown ids do nothing.
  void Unwatch(WatchId id);

  // Calls `action` once, not before `when`.
  TimerId RunAt(Time when, std::function<void()> action);
  void CancelTimer(TimerId id) { timers_.erase(id); }

  // Calls `action` on the loop's thread. From any thread.
  void Post(std::function<void()> action);

  // Returns after Stop(), which may come from any thread and before Run().
  void Run();
  void Stop();

 private:
  struct Watched {
    int fd;
    std::shared_ptr<Handler> handler;
  };

  EventLoop(UniqueFd epoll, UniqueFd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}
  int TimeoutMs() const;
  void RunPosted();
  void RunTimers();

  UniqueFd epoll_;
  UniqueFd wake_;
  std::uint64_t last_id_ = 0;
  std::unordered_map<WatchId, Watched> watched_;
  std::map<TimerId, std::function<void()>> timers_;
  bool stopped_ = false;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // guarded by mutex_
};

}  // namespace hatchery::agent::guest
