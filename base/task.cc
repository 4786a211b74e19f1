#include "base/task.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdlib>
#include <exception>

#include "base/log.h"
#include "base/notifier.h"
#include "base/without_throwing.h"

namespace hatchery {

Deadline After(std::chrono::nanoseconds duration) {
  const auto now = std::chrono::steady_clock::now();
  // "For ever" must not wrap around into the past.
  if (duration > Deadline::max() - now) return Deadline::max();
  return now + duration;
}

Task<void> SleepFor(std::chrono::nanoseconds duration) {
  asio::steady_timer timer(co_await asio::this_coro::executor, After(duration));
  auto [error] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  // The timer may have expired before the cancellation reached it: who sleeps in a loop would not
  // hear of it again.
  if (error || co_await IsCancelled()) co_return Cancelled("cancelled while waiting");
  co_return Result<void>();
}

asio::awaitable<bool> IsCancelled() {
  auto state = co_await asio::this_coro::cancellation_state;
  co_return state.cancelled() != asio::cancellation_type::none;
}

struct TaskScope::Entry {
  asio::cancellation_signal signal;
  std::string name;
};

struct TaskScope::State {
  explicit State(Executor e) : executor(e), changed(e) {}
  Executor executor;
  std::list<Entry> entries;
  Notifier changed;
};

TaskScope::TaskScope(Executor executor) : state_(std::make_shared<State>(std::move(executor))) {}

TaskScope::~TaskScope() {
  if (!state_->entries.empty()) {
    log::Error({}, "a task scope was destroyed with a task still running: " +
                       state_->entries.front().name);
    std::abort();
  }
}

void TaskScope::Spawn(std::string name, asio::awaitable<void> body) {
  auto entry = state_->entries.emplace(state_->entries.end());
  entry->name = std::move(name);
  auto on_exit = [state = state_, entry](std::exception_ptr failure) {
    if (failure) {
      try {
        std::rethrow_exception(failure);
      } catch (const std::exception& e) {
        log::Error({}, "task '" + entry->name + "' ended with an exception: " + e.what());
      } catch (...) {
        log::Error({}, "task '" + entry->name + "' ended with an unknown exception");
      }
    }
    // The signal's memory is still used by the frames that unwind below this handler.
    asio::post(state->executor, [state, entry] {
      state->entries.erase(entry);
      state->changed.NotifyAll();
    });
  };
  asio::co_spawn(state_->executor, WithoutThrowing(std::move(body)),
                 asio::bind_cancellation_slot(entry->signal.slot(), std::move(on_exit)));
}

void TaskScope::Cancel() {
  // On the loop: from outside, Boost 1.81 would queue each signal for a task that may end before.
  asio::dispatch(state_->executor, [state = state_] {
    // A task may end, or start others, while it is told: its entry goes only in a later turn of the
    // loop, and new ones are appended, so walking the list as it was is safe.
    std::size_t left = state->entries.size();
    for (auto it = state->entries.begin(); left > 0; ++it, --left) {
      it->signal.emit(asio::cancellation_type::terminal);
    }
  });
}

asio::awaitable<void> TaskScope::Join() {
  auto state = state_;
  while (!state->entries.empty()) {
    (void)co_await state->changed.Wait(Deadline::max());
  }
}

std::size_t TaskScope::size() const { return state_->entries.size(); }

}  // namespace hatchery
