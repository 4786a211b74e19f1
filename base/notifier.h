// Waiting for something to happen on the loop thread: a condition variable and a one-value future
// for coroutines. Loop thread only. A waiter may be destroyed or cancelled at any time; destroying
// a Notifier wakes its waiters with kCancelled.
#pragma once

#include <list>
#include <memory>
#include <optional>

#include "base/task.h"

namespace hatchery {

class Notifier {
 public:
  explicit Notifier(Executor executor);
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  // Wakes every coroutine that waits now. Like a condition variable, it has no memory: callers
  // re-check what they wait for.
  void NotifyAll();

  // Returns after the next NotifyAll(). kDeadlineExceeded past `deadline`; kCancelled when it is
  // cancelled meanwhile, whatever else comes in the same turn, or when the notifier is destroyed.
  Task<void> Wait(Deadline deadline);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// A value that arrives once and may be awaited by several.
template <class T>
class OneShot {
 public:
  explicit OneShot(Executor executor) : arrived_(std::move(executor)) {}

  // The first call wins; later ones are ignored.
  void Set(T value) {
    if (value_) return;
    value_.emplace(std::move(value));
    arrived_.NotifyAll();
  }
  bool has_value() const { return value_.has_value(); }
  const std::optional<T>& value() const { return value_; }

  // A copy of the value, as soon as there is one.
  Task<T> Wait(Deadline deadline) {
    while (!value_) {
      auto arrived = co_await arrived_.Wait(deadline);
      if (!arrived && !value_) co_return std::unexpected(arrived.error());
    }
    co_return *value_;
  }

 private:
  std::optional<T> value_;
  Notifier arrived_;
};

}  // namespace hatchery
