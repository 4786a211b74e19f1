#include "cmd/hatchery/local.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace hatchery::cli {
namespace {

// Cancelled in its first step; what it does afterwards is its clean-up.
Task<int> WaitThenCleanUp(bool* cleaned_up) {
  const auto slept = co_await SleepFor(std::chrono::hours(1));
  co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
  *cleaned_up = true;
  if (!slept) co_return std::unexpected(slept.error());
  co_return 1;
}

Task<int> Answer() { co_return 42; }

TEST(RunHere, ReturnsTheResult) {
  asio::io_context io;
  Interrupt interrupt;
  EXPECT_EQ(RunHere(io, interrupt, Answer()), 42);
  EXPECT_EQ(RunHere(io, interrupt, Answer()), 42) << "a second time on the same loop";
}

TEST(RunHere, AnInterruptCancelsAndWaitsForTheCleanUp) {
  asio::io_context io;
  Interrupt interrupt;
  bool cleaned_up = false;
  // Raised from the loop itself, so once the task is waiting.
  asio::post(io, [&] { asio::post(io, [&] { EXPECT_TRUE(interrupt.Raise(SIGINT)); }); });
  const auto result = RunHere(io, interrupt, WaitThenCleanUp(&cleaned_up));
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, Code::kCancelled);
  EXPECT_TRUE(cleaned_up);
}

TEST(Interrupt, ReachesAScopeThatComesLater) {
  Interrupt interrupt;
  EXPECT_FALSE(interrupt.Raise(SIGTERM)) << "nobody reacts";
  EXPECT_EQ(interrupt.signal(), SIGTERM);
  int called = 0;
  {
    const Interrupt::Scope scope(interrupt, [&] { ++called; });
    EXPECT_EQ(called, 1);
    EXPECT_TRUE(interrupt.Raise(SIGTERM));
    EXPECT_EQ(called, 2);
  }
  EXPECT_FALSE(interrupt.Raise(SIGTERM));
}

}  // namespace
}  // namespace hatchery::cli
