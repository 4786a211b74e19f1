#include "base/task.h"

#include <gtest/gtest.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <stdexcept>
#include <thread>

#include "base/notifier.h"
#include "base/offload.h"
#include "base/run.h"
#include "base/shield.h"

namespace hatchery {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

TEST(TaskScope, CancelEndsAWaitAtOnce) {
  asio::io_context io;
  TaskScope scope(io.get_executor());
  std::optional<Result<void>> seen;
  scope.Spawn("sleeper", [](std::optional<Result<void>>& out) -> asio::awaitable<void> {
    out = co_await SleepFor(hours(1));
  }(seen));
  RunUntilDone(io,
               [](TaskScope& s) -> Task<void> {
                 CO_RETURN_IF_ERROR(co_await SleepFor(milliseconds(1)));
                 s.Cancel();
                 co_await s.Join();
                 co_return Result<void>();
               }(scope))
      .value();
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(seen->error().code, Code::kCancelled);
  EXPECT_EQ(scope.size(), 0u);
}

// The cancellation comes in the turn of the loop in which the timer has expired, too late to reach
// it.
TEST(TaskScope, CancelEndsALoopOfSleepsWhoseTimeIsJustUp) {
  asio::io_context io;
  TaskScope scope(io.get_executor());
  const Deadline start = std::chrono::steady_clock::now();
  scope.Spawn("loop", []() -> asio::awaitable<void> {
    while (co_await SleepFor(milliseconds(2))) {
    }
  }());
  asio::steady_timer before(io, start + milliseconds(1));
  before.async_wait([&](boost::system::error_code) { scope.Cancel(); });
  // Both have expired when the loop looks at its timers next.
  asio::post(io, [&] {
    while (std::chrono::steady_clock::now() < start + milliseconds(10)) {
    }
  });
  io.run_for(std::chrono::seconds(10));
  EXPECT_EQ(scope.size(), 0u);
  io.stop();
}

TEST(TaskScope, SurvivesATaskThatThrows) {
  asio::io_context io;
  TaskScope scope(io.get_executor());
  scope.Spawn("thrower", []() -> asio::awaitable<void> {
    throw std::runtime_error("a bug");
    co_return;
  }());
  RunUntilDone(io,
               [](TaskScope& s) -> Task<void> {
                 co_await s.Join();
                 co_return Result<void>();
               }(scope))
      .value();
}

TEST(OneShot, WakesEveryWaiterWithTheFirstValue) {
  asio::io_context io;
  OneShot<int> shot(io.get_executor());
  TaskScope scope(io.get_executor());
  int sum = 0;
  for (int i = 0; i < 3; ++i) {
    scope.Spawn("waiter", [](OneShot<int>& s, int& total) -> asio::awaitable<void> {
      total += (co_await s.Wait(After(hours(1)))).value();
    }(shot, sum));
  }
  RunUntilDone(io,
               [](OneShot<int>& s, TaskScope& all) -> Task<void> {
                 CO_RETURN_IF_ERROR(co_await SleepFor(milliseconds(1)));
                 s.Set(7);
                 s.Set(8);
                 co_await all.Join();
                 co_return Result<void>();
               }(shot, scope))
      .value();
  EXPECT_EQ(sum, 21);
}

TEST(Notifier, IsCancelledAlsoByWhatComesWithTheNotification) {
  asio::io_context io;
  TaskScope scope(io.get_executor());
  Notifier notifier(io.get_executor());
  scope.Spawn("loop", [](Notifier& n) -> asio::awaitable<void> {
    while (co_await n.Wait(Deadline::max())) {
    }
  }(notifier));
  asio::post(io, [&] {
    notifier.NotifyAll();
    scope.Cancel();
  });
  io.run_for(std::chrono::seconds(10));
  EXPECT_EQ(scope.size(), 0u);
}

TEST(Notifier, WaitEndsAtItsDeadline) {
  asio::io_context io;
  Notifier notifier(io.get_executor());
  auto result = RunUntilDone(io, notifier.Wait(After(milliseconds(1))));
  EXPECT_EQ(result.error().code, Code::kDeadlineExceeded);
}

TEST(Notifier, DestroyingItWakesItsWaiters) {
  asio::io_context io;
  auto notifier = std::make_unique<Notifier>(io.get_executor());
  TaskScope scope(io.get_executor());
  std::optional<Result<void>> seen;
  scope.Spawn("waiter", [](Notifier& n, std::optional<Result<void>>& out) -> asio::awaitable<void> {
    out = co_await n.Wait(Deadline::max());
  }(*notifier, seen));
  RunUntilDone(io,
               [](std::unique_ptr<Notifier>& n, TaskScope& s) -> Task<void> {
                 CO_RETURN_IF_ERROR(co_await SleepFor(milliseconds(1)));
                 n.reset();
                 co_await s.Join();
                 co_return Result<void>();
               }(notifier, scope))
      .value();
  EXPECT_EQ(seen.value().error().code, Code::kCancelled);
}

TEST(After, ForEverDoesNotWrapAround) {
  EXPECT_EQ(After(std::chrono::nanoseconds::max()), Deadline::max());
}

TEST(WorkerPool, AnswersOnTheLoop) {
  asio::io_context io;
  WorkerPool workers(1);
  const auto loop = std::this_thread::get_id();
  RunUntilDone(io,
               [](WorkerPool& w, std::thread::id expected) -> Task<void> {
                 auto worker = co_await w.Run(
                     []() -> Result<std::thread::id> { return std::this_thread::get_id(); });
                 EXPECT_TRUE(worker.value() != expected);
                 EXPECT_TRUE(std::this_thread::get_id() == expected);
                 co_return Result<void>();
               }(workers, loop))
      .value();
}

// Whether it came while the work ran or while it was queued.
TEST(WorkerPool, ACancelledCallerStillGetsTheAnswer) {
  asio::io_context io;
  WorkerPool workers(1);
  TaskScope scope(io.get_executor());
  std::promise<void> cancelled;
  std::optional<Result<int>> running, queued;
  auto run = [](WorkerPool& w, std::shared_future<void> until, int value,
                std::optional<Result<int>>& out) -> asio::awaitable<void> {
    out = co_await w.Run([until, value]() -> Result<int> {
      until.wait();
      return value;
    });
  };
  const auto until = cancelled.get_future().share();
  scope.Spawn("running", run(workers, until, 1, running));
  scope.Spawn("queued", run(workers, until, 2, queued));
  RunUntilDone(io,
               [](TaskScope& s, std::promise<void>& told) -> Task<void> {
                 s.Cancel();
                 told.set_value();
                 co_await s.Join();
                 co_return Result<void>();
               }(scope, cancelled))
      .value();
  EXPECT_EQ(running.value().value(), 1);
  ASSERT_TRUE(queued.has_value());
  EXPECT_EQ(queued->value(), 2);
}

TEST(Shielded, ACancellationDoesNotReachTheBody) {
  asio::io_context io;
  TaskScope scope(io.get_executor());
  std::optional<Result<void>> inside;
  bool cancelled_outside = false;
  scope.Spawn("shield", [](std::optional<Result<void>>& in, bool& out) -> asio::awaitable<void> {
    in = co_await Shielded(SleepFor(milliseconds(2)));
    out = co_await IsCancelled();
  }(inside, cancelled_outside));
  RunUntilDone(io,
               [](TaskScope& s) -> Task<void> {
                 s.Cancel();
                 co_await s.Join();
                 co_return Result<void>();
               }(scope))
      .value();
  EXPECT_TRUE(inside.value().has_value());
  EXPECT_TRUE(cancelled_outside);
}

}  // namespace
}  // namespace hatchery
