#include <gtest/gtest.h>

#include <optional>

#include "agent/fake/fake_agent.h"
#include "base/run.h"

namespace hatchery::agent {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

class FakeAgentsTest : public testing::Test {
 protected:
  std::unique_ptr<Client> Connect(const Endpoint& endpoint) {
    return RunUntilDone(io_, agents_.Connect(endpoint, After(seconds(5)))).value();
  }
  Result<void> Check(Client& client, std::chrono::nanoseconds timeout = seconds(20)) {
    return RunUntilDone(io_, client.Check(After(timeout)));
  }

  asio::io_context io_;
  FakeAgents agents_{io_.get_executor()};
  const Endpoint a_ = UnixEndpoint{"/a"}, b_ = UnixEndpoint{"/b"};
};

TEST_F(FakeAgentsTest, FailsAsOftenAsItIsTold) {
  auto client = Connect(a_);
  agents_.FailNext(Method::kCheck, {Code::kInternal, "as told"}, 2);
  EXPECT_EQ(Check(*client).error().message, "Check: as told");
  EXPECT_EQ(Check(*client).error().code, Code::kInternal);
  EXPECT_TRUE(Check(*client).has_value());
  EXPECT_EQ(agents_.CountCalls(Method::kCheck), 3u);
  EXPECT_EQ(agents_.calls().front(), (FakeCall{a_, Method::kConnect}));
}

TEST_F(FakeAgentsTest, ConnectCanFailToo) {
  agents_.FailNext(Method::kConnect, {Code::kUnavailable, "nobody"});
  EXPECT_EQ(RunUntilDone(io_, agents_.Connect(a_, After(seconds(5)))).error().code,
            Code::kUnavailable);
}

TEST_F(FakeAgentsTest, AHungCallEndsAtItsDeadlineAlone) {
  auto client = Connect(a_);
  agents_.HangNext(Method::kCheck);
  EXPECT_EQ(Check(*client, milliseconds(10)).error().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(Check(*client).has_value());
}

TEST_F(FakeAgentsTest, ADelayBeyondTheDeadlineExpires) {
  auto client = Connect(a_);
  agents_.SetDelay(Method::kCheck, hours(1));
  EXPECT_EQ(Check(*client, milliseconds(10)).error().code, Code::kDeadlineExceeded);
  agents_.SetDelay(Method::kCheck, milliseconds(1));
  EXPECT_TRUE(Check(*client).has_value());
}

TEST_F(FakeAgentsTest, GarbageLosesTheConnection) {
  auto client = Connect(a_);
  agents_.GarbleNext(Method::kCheck);
  EXPECT_EQ(Check(*client).error().code, Code::kUnavailable);
  EXPECT_EQ(Check(*client).error().code, Code::kUnavailable);
  EXPECT_FALSE(client->usable());
  EXPECT_TRUE(Check(*Connect(a_)).has_value());
}

TEST_F(FakeAgentsTest, ADeadGuestLosesItsConnectionsAndRefusesNewOnes) {
  auto first = Connect(a_), second = Connect(a_), other = Connect(b_);
  agents_.KillGuest(a_);
  EXPECT_FALSE(first->usable());
  EXPECT_EQ(Check(*second).error().code, Code::kUnavailable);
  EXPECT_TRUE(Check(*other).has_value());
  EXPECT_EQ(RunUntilDone(io_, agents_.Connect(a_, After(seconds(5)))).error().code,
            Code::kUnavailable);
  agents_.ReviveGuest(a_);
  EXPECT_TRUE(Check(*Connect(a_)).has_value());
}

TEST_F(FakeAgentsTest, APoweredOffGuestIsDead) {
  auto client = Connect(a_);
  EXPECT_TRUE(RunUntilDone(io_, client->PowerOff(After(seconds(5)))).has_value());
  EXPECT_EQ(Check(*client).error().code, Code::kUnavailable);
}

TEST_F(FakeAgentsTest, DeathAndCancellationReachACallThatHangs) {
  auto client = Connect(a_), doomed = Connect(b_);
  agents_.HangNext(Method::kCheck, 2);
  TaskScope scope(io_.get_executor());
  std::optional<Result<void>> cancelled, died;
  const auto call = [](Client& c, std::optional<Result<void>>& out) -> asio::awaitable<void> {
    out = co_await c.Check(Deadline::max());
  };
  scope.Spawn("doomed", call(*doomed, died));
  (void)RunUntilDone(io_, SleepFor(milliseconds(1)));
  agents_.KillGuest(b_);
  scope.Spawn("cancelled", call(*client, cancelled));
  (void)RunUntilDone(io_, SleepFor(milliseconds(1)));
  scope.Cancel();
  (void)RunUntilDone(io_, [](TaskScope& s) -> Task<void> {
    co_await s.Join();
    co_return Result<void>();
  }(scope));
  EXPECT_EQ(died.value().error().code, Code::kUnavailable);
  EXPECT_EQ(cancelled.value().error().code, Code::kCancelled);
}

TEST_F(FakeAgentsTest, AnOlderAgentsCommandRunsOnWithoutItsCaller) {
  auto client = Connect(a_);
  agents_.guest(a_).knows_kill = false;
  const auto late =
      RunUntilDone(io_, client->Exec({.argv = {"sleep", "9"}}, After(milliseconds(10))));
  EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(agents_.guest(a_).running_commands, 1u);
}

TEST_F(FakeAgentsTest, AnUnconfirmedReseedFailsClosed) {
  auto client = Connect(a_);
  agents_.SkipReseedNext();
  const Identity identity{.seed = std::string(32, 's')};
  auto report = RunUntilDone(io_, client->Personalize(identity, After(seconds(5))));
  EXPECT_EQ(report.error().code, Code::kInternal);
  EXPECT_TRUE(agents_.guest(a_).seeds.empty());
  report = RunUntilDone(io_, client->Personalize(identity, After(seconds(5))));
  EXPECT_TRUE(report.has_value());
  EXPECT_EQ(agents_.guest(a_).seeds, std::vector{identity.seed});
}

TEST_F(FakeAgentsTest, KeepsEachGuestsStateApart) {
  auto a = Connect(a_), b = Connect(b_);
  const Identity identity{
      .seed = std::string(32, 's'), .hostname = "one", .vcpus = 4, .memory = Bytes::GiB(1)};
  (void)RunUntilDone(io_, a->Personalize(identity, After(seconds(5)))).value();
  EXPECT_EQ(RunUntilDone(io_, a->Details(After(seconds(5)))).value().online_vcpus, 4u);
  EXPECT_EQ(RunUntilDone(io_, b->Details(After(seconds(5)))).value().hostname, "template");
  EXPECT_EQ(
      RunUntilDone(io_, a->Exec({.argv = {"exit", "3"}}, After(seconds(5)))).value().exit_code, 3);
}

}  // namespace
}  // namespace hatchery::agent
