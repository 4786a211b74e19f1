#include "bench/load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

namespace hatchery::bench {
namespace {

using std::chrono::milliseconds;

bool Never() { return false; }

// Time that passes only when the sender waits, or when a test lets it.
class FakeTime {
 public:
  SendClock clock() {
    return {[this] { return now_; }, [this](SteadyTime at) { now_ = std::max(now_, at); }};
  }
  void Pass(milliseconds time) { now_ += time; }

 private:
  SteadyTime now_{};
};

TEST(ClosedLoopTest, ClientsShareTheCallsAndFailuresAreCountedByReason) {
  std::atomic<int> by_client[3] = {};
  const Load load = RunClosedLoop(
      3, 10,
      [&](int client) -> Failure {
        const int before = by_client[client]++;
        return client == 2 && before == 0 ? "refused" : "";
      },
      Never);
  EXPECT_EQ(by_client[0], 4);
  EXPECT_EQ(by_client[1], 3);
  EXPECT_EQ(by_client[2], 3);
  EXPECT_EQ(load.samples.size(), 9u);
  EXPECT_EQ(load.failures, (std::map<std::string, std::uint64_t>{{"refused", 1}}));
  EXPECT_GT(load.Rate(), 0);
}

TEST(ClosedLoopTest, MakesNoCallOnceStopped) {
  std::atomic<int> calls = 0;
  const Load load =
      RunClosedLoop(2, 100, [&](int) -> Failure { return ++calls, ""; }, [&] { return calls > 0; });
  EXPECT_LE(load.samples.size(), 2u);
}

TEST(OpenLoopTest, CallsAreDueOnTheScheduleWhateverBecomesOfThem) {
  FakeTime time;
  std::vector<SteadyTime> sent;
  std::vector<Done> open;
  const auto clock = time.clock();
  const Load load = RunOpenLoop(
      clock, 100, 4,
      [&](std::size_t index, Done done) {
        sent.push_back(clock.now());
        open.push_back(std::move(done));
        if (index < 3) return;
        for (std::size_t i = 0; i < open.size(); ++i) open[i](i == 1 ? "lost" : "");
      },
      Never);
  for (std::size_t i = 0; i < sent.size(); ++i) {
    EXPECT_EQ(sent[i], SteadyTime() + milliseconds(10 * i));
  }
  // All were answered when the last was sent.
  EXPECT_EQ(load.samples, (std::vector<double>{0.03, 0.01, 0}));
  EXPECT_EQ(load.failures.at("lost"), 1u);
}

TEST(OpenLoopTest, AStallShowsInTheLatencyOfEveryCallThatWasDueMeanwhile) {
  FakeTime time;
  // The server answers at once, but the second call takes 35 ms, and nothing can be sent meanwhile.
  const Load load = RunOpenLoop(
      time.clock(), 100, 6,
      [&](std::size_t index, const Done& done) {
        if (index == 1) time.Pass(milliseconds(35));
        done("");
      },
      Never);
  ASSERT_EQ(load.samples.size(), 6u);
  // Due at 0, 10, 20, 30, 40, 50 ms; the stall lasts from 10 to 45.
  const double expected[] = {0, 0.035, 0.025, 0.015, 0.005, 0};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(load.samples[i], expected[i], 1e-9) << i;
}

TEST(OpenLoopTest, ACallThatFindsTooManyUnderWayIsAFailure) {
  FakeTime time;
  std::vector<Done> open;
  constexpr std::size_t kCalls = kMaxInFlight + 5;
  const Load load = RunOpenLoop(
      time.clock(), 1000, kCalls + 1,
      [&](std::size_t, Done done) { open.push_back(std::move(done)); },
      [&, asked = std::size_t{0}]() mutable {
        if (++asked <= kCalls) return false;
        for (const auto& done : open) done("");
        return true;
      });
  EXPECT_EQ(load.samples.size(), kMaxInFlight);
  ASSERT_EQ(load.failures.size(), 1u);
  EXPECT_EQ(load.failures.begin()->second, 5u);
}

}  // namespace
}  // namespace hatchery::bench
