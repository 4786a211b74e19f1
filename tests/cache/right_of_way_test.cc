#include "cache/right_of_way.h"

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using Method = agent::Method;

// With what other work gives way to acquires for as long as a test may take, or not at all.
class RightOfWayTest : public CacheFixture {
 protected:
  void Give(PutOff put_off) {
    Finish();
    settings_.put_off = put_off;
    Begin();
    ASSERT_TRUE(Init(2).has_value());
  }
  // An acquire whose guest does not answer until it is ended.
  void StartAcquireThatHangs() {
    outside_.agents.HangNext(Method::kPersonalize);
    asio::co_spawn(outside_.io, cache().leases().Acquire({}, After(kLong)),
                   [this](std::exception_ptr, Result<Acquired>) { ended_ = true; });
    while (OnlyPool().leased == 0) outside_.io.run_one();
  }
  void EndIt() {
    for (const auto& vm : cache().vms().List()) {
      if (vm->phase() == record::VM_PHASE_ASSIGNED) outside_.agents.KillGuest(AgentOf(vm));
    }
    while (!ended_) outside_.io.run_one();
  }
  bool ended_ = false;
};

TEST_F(RightOfWayTest, APoolDoesNotRefillWhileAnAcquireRuns) {
  Give({.quiet = {}, .refill = kLong, .destroy = kLong});
  StartAcquireThatHangs();
  // Another acquire comes and goes, and asks for a refill.
  const auto other = Acquire();
  ASSERT_TRUE(other.has_value());
  while (outside_.io.poll_one() > 0) {
  }
  EXPECT_EQ(OnlyPool().warm, 0u);
  EXPECT_EQ(OnlyPool().filling, 0u);
  EndIt();
  EXPECT_TRUE(Fill().has_value());
}

TEST_F(RightOfWayTest, APoolThatWasPutOffLongEnoughRefillsAllTheSame) {
  Give({.quiet = {}, .refill = std::chrono::milliseconds(1), .destroy = kLong});
  StartAcquireThatHangs();
  ASSERT_TRUE(Acquire().has_value());
  EXPECT_TRUE(Fill().has_value());
  EXPECT_FALSE(ended_);
  EndIt();
}

TEST_F(RightOfWayTest, AReleasedVmIsDestroyedWhenNoAcquireRunsOrItIsTime) {
  Give({.quiet = {}, .refill = kLong, .destroy = kLong});
  const auto first = Acquire();
  ASSERT_TRUE(first.has_value());
  ASSERT_TRUE(Fill().has_value());
  StartAcquireThatHangs();
  EXPECT_FALSE(Run(cache().leases().Release({}, first->vm->id(), After(kMoment))).has_value());
  EXPECT_NE(outside_.host.Find(first->vm->id()), nullptr);
  EndIt();
  EXPECT_TRUE(Run(first->vm->gone.Wait(After(kLong))).has_value());
  EXPECT_EQ(outside_.host.Find(first->vm->id()), nullptr);
}

TEST_F(RightOfWayTest, SoManyVmsAreMadeUniqueAtOnceAndTheRestInTurn) {
  settings_.parallel_acquires = 1;
  Give({.quiet = {}, .refill = kLong, .destroy = kLong});
  StartAcquireThatHangs();
  const auto warm = OnlyPool().warm;
  const auto refused = Acquire({}, kMoment);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(OnlyPool().warm, warm) << "the VM that was meant for it is still warm";
  // One that is resized mostly waits for its guest, and not for its turn.
  EXPECT_TRUE(Acquire({.vcpus = 2}).has_value());
  EndIt();
  EXPECT_TRUE(Acquire().has_value());
}

TEST_F(RightOfWayTest, QuietIsWaitedForAfterAnAcquireButNotForEver) {
  RightOfWay way(outside_.io.get_executor());
  EXPECT_TRUE(way.IsFree(kLong));
  {
    const RightOfWay::Acquire running(way);
    EXPECT_FALSE(way.IsFree({}));
  }
  EXPECT_TRUE(way.IsFree({}));
  EXPECT_FALSE(way.IsFree(kLong));
  const auto at_latest = After(std::chrono::milliseconds(1));
  Run([](RightOfWay& w, Deadline at) -> asio::awaitable<bool> {
    co_await w.WaitUntilFree(kLong, at);
    co_return true;
  }(way, at_latest));
  EXPECT_GE(std::chrono::steady_clock::now(), at_latest);
}

}  // namespace
}  // namespace hatchery::cache
