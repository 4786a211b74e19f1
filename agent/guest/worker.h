// One thread for the few calls that block: onlining CPUs and memory, sync.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace hatchery::agent::guest {

class Worker {
 public:
  Worker();
  // Finishes what is running and drops what is queued.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Runs `job` after those before it. From any thread.
  void Submit(std::function<void()> job);

 private:
  void Work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace hatchery::agent::guest
