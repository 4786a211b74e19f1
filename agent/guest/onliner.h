// Brings hot-added CPUs and memory online the moment they appear, whether anybody asked or not, as
// udev does elsewhere: so the acquire that added them only waits for the result.
//
// Loop thread only; the slow writes (onlining one CPU can take 100 ms) run on the worker, which
// must have ended before this is destroyed. Memory is onlined movable, or it could not be unplugged
// again.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "agent/guest/event_loop.h"
#include "agent/guest/system.h"
#include "agent/guest/uevents.h"
#include "agent/guest/worker.h"
#include "base/bytes.h"

namespace hatchery::agent::guest {

struct Online {
  std::uint32_t vcpus = 0;
  Bytes memory;         // the sum of the memory blocks that are online
  std::string problem;  // the last write that failed, or empty
};

class Onliner {
 public:
  using WaitId = std::uint64_t;
  using Done = std::function<void(Result<Online>)>;

  // `has_uevents`: OnUevent() will be called. Otherwise, while somebody waits, it looks every 20
  // ms.
  Onliner(EventLoop& loop, Worker& worker, GuestSystem& system, bool has_uevents);
  ~Onliner();

  void OnUevent(const Uevent& event);

  // As of the last event.
  const Online& online() const { return online_; }

  // Calls `done` when at least so much is online, at once if it is. kDeadlineExceeded says how much
  // there is: "vcpus: 1 of 2 online after 10 s".
  WaitId WaitFor(std::uint32_t vcpus, Bytes memory, std::chrono::nanoseconds timeout, Done done);
  // `done` will not be called. Ids that are gone do nothing.
  void CancelWait(WaitId id);

 private:
  enum class Scan { kCount, kBringOnline };
  struct Waiter {
    std::uint32_t vcpus;
    Bytes memory;
    std::chrono::nanoseconds timeout;
    EventLoop::TimerId timer;
    Done done;
  };

  void Request(Scan scan);
  void OnScanned(Online online);
  bool IsEnough(const Waiter& waiter) const;
  Error Shortfall(const Waiter& waiter) const;

  EventLoop& loop_;
  Worker& worker_;
  GuestSystem& system_;
  const bool has_uevents_;
  Online online_;
  bool scanning_ = false;
  bool again_ = false;
  Scan next_ = Scan::kCount;
  WaitId last_id_ = 0;
  std::map<WaitId, Waiter> waiters_;
  EventLoop::TimerId retry_{};
};

// The number of CPUs in a list of the kernel's: "0-3,5" is 5. 0 for what is no such list.
std::uint32_t CountCpuList(std::string_view list);

// The size of a memory block; 0 where memory cannot be hot-added.
Bytes MemoryBlockSize(const GuestSystem& system);

}  // namespace hatchery::agent::guest
