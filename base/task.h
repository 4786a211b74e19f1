// Coroutines on the one loop thread.
//
// Every asynchronous operation of Hatchery is a Task<T>: it is awaited on the loop's executor,
// takes a Deadline, and answers with a Result<T>. A Task that is cancelled (its TaskScope was
// cancelled, or the gRPC client went away) answers with kCancelled as soon as the operation that it
// waits for can stop; it never throws for it. Nothing here is thread-safe: loop thread only.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "base/status.h"

namespace hatchery {

namespace asio = boost::asio;
using Executor = asio::any_io_executor;

template <class T>
using Task = asio::awaitable<Result<T>>;

using Deadline = std::chrono::steady_clock::time_point;

// `duration` from now.
Deadline After(std::chrono::nanoseconds duration);

// The earlier of the two.
inline Deadline Sooner(Deadline a, Deadline b) { return a < b ? a : b; }

// Waits for `duration`. kCancelled when cancelled, also if that was before or comes when the time
// is up: a loop of sleeps ends.
Task<void> SleepFor(std::chrono::nanoseconds duration);

// True if the coroutine that awaits this has been asked to stop.
asio::awaitable<bool> IsCancelled();

// Owns coroutines that run beside their starter: refills, destroys, connection readers.
// Destroying a scope that still has tasks is a bug (it aborts); Join() first.
class TaskScope {
 public:
  explicit TaskScope(Executor executor);
  ~TaskScope();
  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;

  // Starts `body`, which may run to its end before this returns. `name` appears in the log if it
  // ends with an exception, which is a bug but does not take the process down.
  void Spawn(std::string name, asio::awaitable<void> body);

  // Asks every running task to stop. Later Spawn()s are started cancelled-free; stop the sources
  // of new work first.
  void Cancel();

  // Returns when no task is left, also those spawned while waiting.
  asio::awaitable<void> Join();

  std::size_t size() const;

 private:
  struct Entry;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace hatchery
