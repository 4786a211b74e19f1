#include "cache/onlining.h"

#include <gmock/gmock.h>

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using agent::Method;
using testing::HasSubstr;

class OnliningTest : public CacheFixture {
 protected:
  explicit OnliningTest(bool keep_warm = false) : CacheFixture(keep_warm) {
    EXPECT_TRUE(Init(1).has_value());
  }

  static AcquireParams Larger() {
    return {.request_id = RequestId("r1"),
            .vcpus = 3,
            .memory = Bytes::MiB(384),
            .resize_in_background = true};
  }
  // A guest as it is after its template was booted: nothing of what is added is online.
  VmPtr AcquireLarger() {
    auto acquired = Acquire(Larger());
    EXPECT_TRUE(acquired.has_value()) << ToString(acquired.error());
    return acquired ? acquired->vm : nullptr;
  }
  Result<void> Wait(const VmPtr& vm, std::chrono::nanoseconds timeout = kLong) {
    return Run(cache().onlining().Wait(vm, After(timeout)));
  }
  // No task follows a VM any more, within a few turns of the loop and long before a guest that
  // hangs would have been given up.
  bool NobodyIsFollowed() {
    for (int turn = 0; turn < 1000 && cache().onlining().size() > 0; ++turn) {
      EXPECT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
    }
    return cache().onlining().size() == 0;
  }
  record::VmRecord Stored(const VmPtr& vm) {
    record::VmRecord stored;
    EXPECT_TRUE(stored.ParseFromString(outside_.store.Get(Table::kVms, vm->record.id()).value()));
    return stored;
  }
};

TEST_F(OnliningTest, RepliesBeforeTheGuestIsDoneAndSaysWhatIsPending) {
  outside_.agents.HangNext(Method::kAwaitOnline);
  const auto vm = AcquireLarger();
  EXPECT_EQ(vm->machine->vm->vcpus(), 3u) << "plugged in";
  EXPECT_EQ(vm->record.vcpus(), 3u);
  EXPECT_EQ(vm->record.pending_vcpus(), 2u);
  EXPECT_EQ(vm->record.pending_memory_bytes(), Bytes::MiB(128).count());
  EXPECT_EQ(Stored(vm).pending_vcpus(), 2u);
  // It is unique all the same (after two rehearsals), and can be used.
  EXPECT_EQ(outside_.agents.guest(AgentOf(vm)).seeds.size(), 3u);
  EXPECT_EQ(outside_.agents.guest(AgentOf(vm)).machine_id, vm->record.machine_id());
  EXPECT_EQ(outside_.agents.guest(AgentOf(vm)).boot_id, vm->record.boot_id());
  EXPECT_TRUE(
      Run(cache().leases().Exec({}, vm->id(), {.argv = {"true"}}, After(kLong))).has_value());
  EXPECT_EQ(cache().onlining().size(), 1u);
  const auto waited = Wait(vm, std::chrono::milliseconds(1));
  EXPECT_EQ(waited.error().code, Code::kDeadlineExceeded);
  EXPECT_THAT(waited.error().message, HasSubstr(vm->record.id()));
}

TEST_F(OnliningTest, NothingIsPendingOnceTheGuestIsDone) {
  outside_.agents.SetDelay(Method::kAwaitOnline, std::chrono::milliseconds(5));
  const auto vm = AcquireLarger();
  ASSERT_TRUE(vm->pending());
  ASSERT_TRUE(Wait(vm).has_value());
  EXPECT_FALSE(vm->pending());
  EXPECT_EQ(vm->record.vcpus(), 3u);
  EXPECT_EQ(Stored(vm).pending_vcpus(), 0u);
  EXPECT_EQ(Stored(vm).pending_memory_bytes(), 0u);
  EXPECT_TRUE(NobodyIsFollowed());
}

TEST_F(OnliningTest, ARepeatGivesTheSameVmAndWaitsUnlessToldNotTo) {
  outside_.agents.SetDelay(Method::kAwaitOnline, std::chrono::milliseconds(20));
  const auto vm = AcquireLarger();
  const auto at_once = Acquire(Larger());
  ASSERT_TRUE(at_once.has_value()) << ToString(at_once.error());
  EXPECT_EQ(at_once->vm, vm);
  EXPECT_EQ(at_once->source, Source::kRepeat);
  EXPECT_TRUE(vm->pending());
  auto waiting = Larger();
  waiting.resize_in_background = false;
  const auto later = Acquire(waiting);
  ASSERT_TRUE(later.has_value()) << ToString(later.error());
  EXPECT_EQ(later->vm, vm);
  EXPECT_FALSE(vm->pending());
}

TEST_F(OnliningTest, AnAcquireThatResizesNothingHasNothingPending) {
  const auto vm = Acquire({.resize_in_background = true})->vm;
  EXPECT_FALSE(vm->pending());
  EXPECT_TRUE(NobodyIsFollowed());
}

TEST_F(OnliningTest, AnUnconfirmedReseedFailsAsAlways) {
  outside_.agents.FailNext(Method::kPersonalize, {Code::kInternal, "no entropy"});
  const auto vm = AcquireLarger();
  // The first VM, which did not confirm, is destroyed; this one is another.
  EXPECT_EQ(outside_.agents.guest(AgentOf(vm)).machine_id, vm->record.machine_id());
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(2);
}

TEST_F(OnliningTest, AReleaseEndsTheWaiting) {
  outside_.agents.HangNext(Method::kAwaitOnline);
  const auto vm = AcquireLarger();
  ASSERT_TRUE(Release(vm).has_value());
  EXPECT_TRUE(NobodyIsFollowed());
  EXPECT_TRUE(Wait(vm).has_value());
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(1);
}

TEST_F(OnliningTest, ARepeatThatWaitsLearnsThatTheLeaseHasEnded) {
  outside_.agents.HangNext(Method::kAwaitOnline);
  const auto vm = AcquireLarger();
  TaskScope scope(outside_.io.get_executor());
  std::optional<Result<Acquired>> repeated;
  auto waiting = Larger();
  waiting.resize_in_background = false;
  scope.Spawn(
      "repeat",
      [](Cache& c, AcquireParams p, std::optional<Result<Acquired>>& out) -> asio::awaitable<void> {
        out = co_await c.leases().Acquire(std::move(p), After(kLong));
      }(cache(), waiting, repeated));
  ASSERT_TRUE(Release(vm).has_value());
  Run([](TaskScope& s) -> asio::awaitable<bool> {
    co_await s.Join();
    co_return true;
  }(scope));
  EXPECT_EQ(repeated->error().code, Code::kFailedPrecondition);
}

TEST_F(OnliningTest, AGuestThatCannotKeepsItsVmAndSaysWhy) {
  outside_.agents.FailNext(Method::kAwaitOnline, {Code::kInternal, "cpu2 does not start"});
  const auto vm = AcquireLarger();
  const auto waited = Wait(vm);
  EXPECT_EQ(waited.error().code, Code::kUnavailable);
  EXPECT_THAT(waited.error().message, HasSubstr("cpu2 does not start"));
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
  EXPECT_TRUE(vm->pending());
  EXPECT_THAT(vm->pending_problem, HasSubstr("cpu2 does not start"));
  // It is asked again, and gets there after all.
  while (vm->pending()) ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
  EXPECT_EQ(vm->pending_problem, "");
}

TEST_F(OnliningTest, WhatIsThereAlreadyIsSaidThoughTheRestIsMissing) {
  outside_.agents.SetDelay(Method::kAwaitOnline, std::chrono::milliseconds(1));
  const auto vm = AcquireLarger();
  outside_.agents.guest(AgentOf(vm)).present_vcpus = 2;
  EXPECT_EQ(Wait(vm).error().code, Code::kUnavailable);
  EXPECT_EQ(vm->record.pending_vcpus(), 1u);
  EXPECT_EQ(vm->record.pending_memory_bytes(), 0u);
  EXPECT_EQ(Stored(vm).pending_vcpus(), 1u);
}

TEST_F(OnliningTest, AGuestWhoseConnectionWasLostIsAskedAgainOverAnother) {
  outside_.agents.GarbleNext(Method::kAwaitOnline);
  const auto vm = AcquireLarger();
  EXPECT_EQ(Wait(vm).error().code, Code::kUnavailable);
  EXPECT_TRUE(vm->pending());
  while (vm->pending()) ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
  EXPECT_EQ(vm->pending_problem, "");
  EXPECT_TRUE(NobodyIsFollowed());
}

class OnliningRecoveryTest : public OnliningTest {
 protected:
  OnliningRecoveryTest() : OnliningTest(/*keep_warm=*/true) {}
};

TEST_F(OnliningRecoveryTest, TheNextDaemonFollowsOn) {
  outside_.agents.HangNext(Method::kAwaitOnline);
  const auto id = AcquireLarger()->id();
  Die();
  Begin();
  const auto vm = cache().vms().Find(id);
  ASSERT_NE(vm, nullptr);
  ASSERT_TRUE(Wait(vm).has_value());
  EXPECT_FALSE(vm->pending());
  EXPECT_EQ(vm->record.vcpus(), 3u);
  EXPECT_EQ(Stored(vm).pending_vcpus(), 0u);
}

}  // namespace
}  // namespace hatchery::cache
