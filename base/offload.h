// Blocking work off the loop: copying memory, hashing, fsync, large reads.
#pragma once

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <type_traits>
#include <utility>

#include "base/task.h"

namespace hatchery {

// A bounded set of threads for blocking work. Create one per process; it is joined when destroyed.
class WorkerPool {
 public:
  explicit WorkerPool(std::size_t threads) : pool_(threads) {}
  ~WorkerPool() { pool_.join(); }

  // Runs `work()` (which returns a Result<T>, and touches no state of the loop) on a worker and
  // answers on the loop. Never cancelled: the caller waits for its end.
  template <class Work>
  auto Run(Work work) -> asio::awaitable<std::invoke_result_t<Work>> {
    using R = std::invoke_result_t<Work>;
    auto body = [](Work w) -> asio::awaitable<R> { co_return w(); };
    // Without the caller's cancellation slot: Asio would deliver a cancellation through the pool,
    // on one worker, to a coroutine that runs on another.
    co_return co_await asio::co_spawn(
        pool_.get_executor(), body(std::move(work)),
        asio::bind_cancellation_slot(asio::cancellation_slot(), asio::use_awaitable));
  }

 private:
  asio::thread_pool pool_;
};

}  // namespace hatchery
