// Two tasks at once. Boost 1.81's own operators (a && b, a || b) may use a finished task's memory
// when they are cancelled: use these instead. Loop thread only.
#pragma once

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "base/notifier.h"
#include "base/shield.h"
#include "base/task.h"
#include "base/without_throwing.h"

namespace hatchery {

namespace both {

// A task that runs beside who started it, to its end.
template <class T>
class Child {
 public:
  Child(Executor executor, std::shared_ptr<Notifier> changed, Task<T> body)
      : state_(std::make_shared<State>()) {
    asio::co_spawn(executor, WithoutThrowing(std::move(body)),
                   asio::bind_cancellation_slot(
                       state_->signal.slot(),
                       [state = state_, changed](std::exception_ptr failure, Result<T> result) {
                         state->failure = failure;
                         state->result.emplace(std::move(result));
                         changed->NotifyAll();
                       }));
  }
  bool ended() const { return state_->result.has_value(); }
  void Cancel() {
    if (!ended()) state_->signal.emit(asio::cancellation_type::terminal);
  }
  Result<T> Take() {
    if (state_->failure) std::rethrow_exception(state_->failure);
    return *std::move(state_->result);
  }

 private:
  struct State {
    asio::cancellation_signal signal;
    std::exception_ptr failure;
    std::optional<Result<T>> result;  // once it has ended
  };
  std::shared_ptr<State> state_;
};

// Until `child` has ended; it is cancelled if we are.
template <class T>
asio::awaitable<void> Await(Child<T>& child, std::shared_ptr<Notifier> changed) {
  while (!child.ended()) {
    if (co_await changed->Wait(Deadline::max())) continue;
    child.Cancel();
    while (!child.ended()) (void)co_await Shielded(changed->Wait(Deadline::max()));
  }
}

}  // namespace both

// Runs `first` until it waits for something, then `second`, and returns when both have ended.
template <class A, class B>
asio::awaitable<std::pair<Result<A>, Result<B>>> Both(Task<A> first, Task<B> second) {
  const auto executor = co_await asio::this_coro::executor;
  const auto changed = std::make_shared<Notifier>(executor);
  both::Child<A> child(executor, changed, std::move(first));
  auto result = co_await std::move(second);
  if (co_await IsCancelled()) child.Cancel();
  co_await both::Await(child, changed);
  co_return std::pair(child.Take(), std::move(result));
}

// Runs both until one of them has ended, then cancels the other, which may end with a result all
// the same.
template <class A, class B>
asio::awaitable<std::pair<Result<A>, Result<B>>> Either(Task<A> first, Task<B> second) {
  const auto executor = co_await asio::this_coro::executor;
  const auto changed = std::make_shared<Notifier>(executor);
  both::Child<A> a(executor, changed, std::move(first));
  both::Child<B> b(executor, changed, std::move(second));
  while (!a.ended() && !b.ended()) {
    if (!co_await changed->Wait(Deadline::max())) break;
  }
  a.Cancel();
  b.Cancel();
  co_await both::Await(a, changed);
  co_await both::Await(b, changed);
  co_return std::pair(a.Take(), b.Take());
}

}  // namespace hatchery
