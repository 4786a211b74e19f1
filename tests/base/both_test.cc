#include "base/both.h"

#include <gtest/gtest.h>

#include <string>

#include "base/run.h"

namespace hatchery {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

class BothTest : public testing::Test {
 protected:
  static Task<int> Say(std::string& order, std::string word, std::chrono::nanoseconds after) {
    order += word + "+";
    auto slept = co_await SleepFor(after);
    order += word + (slept ? "- " : "! ");
    if (!slept) co_return std::unexpected(slept.error());
    co_return static_cast<int>(word.size());
  }
  // Runs `body` and cancels it while it waits.
  template <class T>
  T Cancelling(asio::awaitable<T> body) {
    std::optional<T> result;
    TaskScope scope(io_.get_executor());
    scope.Spawn("body", [](asio::awaitable<T> b, std::optional<T>& r) -> asio::awaitable<void> {
      r.emplace(co_await std::move(b));
    }(std::move(body), result));
    io_.poll();
    EXPECT_FALSE(result.has_value());
    scope.Cancel();
    RunUntilDone(io_,
                 [](TaskScope& s) -> Task<void> {
                   co_await s.Join();
                   co_return Result<void>();
                 }(scope))
        .value();
    return *std::move(result);
  }

  asio::io_context io_;
  std::string order_;
};

TEST_F(BothTest, BeginsTheFirstFirstAndWaitsForBoth) {
  auto [first, second] =
      RunUntilDone(io_, Both(Say(order_, "one", {}), Say(order_, "three", milliseconds(1))));
  EXPECT_EQ(first.value(), 3);
  EXPECT_EQ(second.value(), 5);
  EXPECT_EQ(order_.substr(0, 10), "one+three+");
}

TEST_F(BothTest, EitherCancelsTheOtherAndWaitsForIt) {
  auto [first, second] =
      RunUntilDone(io_, Either(Say(order_, "long", hours(1)), Say(order_, "short", {})));
  EXPECT_EQ(first.error().code, Code::kCancelled);
  EXPECT_EQ(second.value(), 5);
  EXPECT_EQ(order_, "long+short+short- long! ");
}

TEST_F(BothTest, ACancellationReachesBothWhoeverIsWaitedFor) {
  auto [a, b] = Cancelling(Both(Say(order_, "a", hours(1)), Say(order_, "b", {})));
  EXPECT_EQ(a.error().code, Code::kCancelled);
  EXPECT_TRUE(b.has_value() || b.error().code == Code::kCancelled);
  auto [c, d] = Cancelling(Both(Say(order_, "c", {}), Say(order_, "d", hours(1))));
  EXPECT_EQ(d.error().code, Code::kCancelled);
  auto [e, f] = Cancelling(Either(Say(order_, "e", hours(1)), Say(order_, "f", hours(1))));
  EXPECT_EQ(e.error().code, Code::kCancelled);
  EXPECT_EQ(f.error().code, Code::kCancelled);
}

TEST_F(BothTest, TasksThatDoNotWaitAreFine) {
  auto at_once = [](int value) -> Task<int> { co_return value; };
  auto [a, b] = RunUntilDone(io_, Both(at_once(1), at_once(2)));
  EXPECT_EQ(a.value() + b.value(), 3);
  auto [c, d] = RunUntilDone(io_, Either(at_once(1), Say(order_, "x", hours(1))));
  EXPECT_EQ(c.value(), 1);
  EXPECT_EQ(d.error().code, Code::kCancelled);
}

}  // namespace
}  // namespace hatchery
