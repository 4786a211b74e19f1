#include "base/notifier.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace hatchery {

struct Notifier::State {
  struct Waiter {
    asio::steady_timer timer;
    bool notified = false;
  };
  explicit State(Executor e) : executor(std::move(e)) {}
  Executor executor;
  std::list<Waiter*> waiters;
  bool closed = false;
};

Notifier::Notifier(Executor executor) : state_(std::make_shared<State>(std::move(executor))) {}

Notifier::~Notifier() {
  state_->closed = true;
  for (auto* waiter : state_->waiters) waiter->timer.cancel();
}

void Notifier::NotifyAll() {
  for (auto* waiter : state_->waiters) {
    waiter->notified = true;
    waiter->timer.cancel();
  }
}

Task<void> Notifier::Wait(Deadline deadline) {
  auto state = state_;
  State::Waiter waiter{asio::steady_timer(state->executor, deadline)};
  struct Registration {
    State& state;
    std::list<State::Waiter*>::iterator entry;
    ~Registration() { state.waiters.erase(entry); }
  };
  Registration registration{*state, state->waiters.insert(state->waiters.end(), &waiter)};
  const bool was_cancelled = co_await IsCancelled();
  auto [error] = co_await waiter.timer.async_wait(asio::as_tuple(asio::use_awaitable));
  // It may have come when the wait had ended already: who waits in a loop would not hear of it
  // again.
  if (!was_cancelled && co_await IsCancelled()) co_return Cancelled("cancelled");
  if (waiter.notified) co_return Result<void>();
  if (!error) co_return DeadlineExceeded("deadline exceeded");
  co_return Cancelled(state->closed ? "closed while waiting" : "cancelled");
}

}  // namespace hatchery
