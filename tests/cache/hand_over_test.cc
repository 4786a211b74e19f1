// VMs that are handed over, paused, to who acquires them.
#include <gmock/gmock.h>

#include "cache/leases.h"
#include "tests/cache/client_process.h"

namespace hatchery::cache {
namespace {

using testing::HasSubstr;

class HandOverTest : public CacheFixture {
 protected:
  HandOverTest() : CacheFixture(/*keep_warm=*/true) {
    settings_.lease_grace = std::chrono::seconds(0);
    settings_.health.agent_interval = std::chrono::milliseconds(1);
    Finish();
    Begin();
  }

  AcquireParams Params() {
    return {.term = {LeaseTerm::Kind::kCaller}, .hand_over = true, .caller = client_.caller()};
  }
  VmPtr Take() {
    auto taken = Acquire(Params());
    EXPECT_TRUE(taken.has_value()) << ToString(taken.error());
    return taken ? taken->vm : nullptr;
  }
  // Fills the template's pool and one of larger VMs; what asks for one of those.
  AcquireParams FillLargerPool() {
    EXPECT_TRUE(
        Run(cache().pools().Set("default", 3, Bytes::MiB(256), 1, After(kLong))).has_value());
    EXPECT_TRUE(Fill().has_value());
    auto params = Params();
    params.vcpus = 3;
    params.memory = Bytes::MiB(256);
    return params;
  }
  void EndClient() { ASSERT_TRUE(Run(client_.End()).has_value()); }

  ClientProcess client_{outside_.io.get_executor()};
};

TEST_F(HandOverTest, GivesAWarmVmAsItIs) {
  ASSERT_TRUE(Init(1).has_value());
  ASSERT_TRUE(Fill().has_value());
  const auto resumed = outside_.host.calls(Verb::kResume);
  auto taken = Acquire(Params());
  ASSERT_TRUE(taken.has_value()) << ToString(taken.error());
  EXPECT_EQ(taken->source, Source::kPool);
  EXPECT_EQ(taken->offline_vcpus, 0u);
  ASSERT_TRUE(taken->handover.has_value());
  EXPECT_EQ(taken->handover->max_vcpus, 4u);
  EXPECT_TRUE(taken->handover->hot_vcpus.empty());

  const auto vm = taken->vm;
  EXPECT_TRUE(vm->handed_over());
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
  EXPECT_EQ(vm->lease->term(), record::LEASE_TERM_CALLER);
  EXPECT_EQ(vm->lease->holder_pid(), client_.caller().process->pid);
  // Only its pool's next one has been resumed since.
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(outside_.host.calls(Verb::kResume), resumed + 2);
  // It has had an identity of its own since it was warmed.
  EXPECT_FALSE(outside_.agents.guest(AgentOf(vm)).machine_id.empty());
  ExpectVms(2);
}

TEST_F(HandOverTest, NobodyTalksToItAfterwards) {
  ASSERT_TRUE(Init(0).has_value());
  ASSERT_TRUE(Run(cache().pools().Set("default", {}, {}, 1, After(kLong))).has_value());
  ASSERT_TRUE(Fill().has_value());
  const auto vm = Take();
  ASSERT_NE(vm, nullptr);
  const auto ours = AgentOf(vm);
  const auto calls = std::ranges::count(outside_.agents.calls(), ours, &agent::FakeCall::endpoint);
  cache().adoption().Look();
  (void)Run(SleepFor(std::chrono::milliseconds(20)));  // many of the health checks' intervals
  EXPECT_EQ(std::ranges::count(outside_.agents.calls(), ours, &agent::FakeCall::endpoint), calls);
  EXPECT_FALSE(vm->reaching);
  EXPECT_EQ(vm->problem, "");

  const auto ran = Run(cache().leases().Exec({}, vm->id(), {.argv = {"true"}}, After(kLong)));
  EXPECT_EQ(ran.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(ran.error().message, HasSubstr("handed over"));
}

TEST_F(HandOverTest, EndsWithItsClient) {
  ASSERT_TRUE(Init(1).has_value());
  const auto vm = Take();
  ASSERT_NE(vm, nullptr);
  EndClient();
  ASSERT_TRUE(Eventually([&] { return cache().vms().Find(vm->id()) == nullptr; }));
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(1);
}

TEST_F(HandOverTest, CanBeReleased) {
  ASSERT_TRUE(Init(1).has_value());
  const auto vm = Take();
  ASSERT_NE(vm, nullptr);
  ASSERT_TRUE(Release(vm).has_value());
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(1);
}

TEST_F(HandOverTest, IsGoneWhenItEnds) {
  ASSERT_TRUE(Init(1).has_value());
  const auto vm = Take();
  ASSERT_NE(vm, nullptr);
  ASSERT_TRUE(outside_.host.Kill(vm->id()).has_value());
  ASSERT_TRUE(Eventually([&] { return cache().vms().Find(vm->id()) == nullptr; }));
}

TEST_F(HandOverTest, SurvivesTheDaemonAndStillEndsWithItsClient) {
  ASSERT_TRUE(Init(1).has_value());
  const auto id = Take()->id();
  Die();
  const auto reconnects = outside_.host.calls(Verb::kReconnect);
  const auto live = outside_.host.live().size();
  Begin();
  const auto vm = cache().vms().Find(id);
  ASSERT_NE(vm, nullptr);
  EXPECT_TRUE(vm->handed_over());
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
  // Warm ones alone were spoken to.
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(outside_.host.calls(Verb::kReconnect), reconnects + live - 1);
  EndClient();
  ASSERT_TRUE(Eventually([&] { return cache().vms().Find(id) == nullptr; }));
}

TEST_F(HandOverTest, OneThatNobodyCanHaveGotYetEndsWithTheDaemon) {
  ASSERT_TRUE(Init(1).has_value());
  ASSERT_TRUE(Fill().has_value());
  // The lease is written down; that it was handed over is not.
  outside_.store.before_write = [](const KvStore::Batch& batch) -> Result<void> {
    if (batch.label == Name(WritePoint::kVmUpdated)) return Unavailable("the disk is full");
    return {};
  };
  outside_.host.SetDelay(Verb::kHandOver, std::chrono::milliseconds(1));
  EXPECT_FALSE(Acquire(Params()).has_value());
  outside_.store.before_write = nullptr;
  ASSERT_TRUE(Eventually([&] { return cache().vms().List().size() == 1 && OnlyPool().warm == 1; }));
  ExpectVms(1);
}

TEST_F(HandOverTest, TakesTheNextWhereOneCannotBe) {
  ASSERT_TRUE(Init(2).has_value());
  ASSERT_TRUE(Fill().has_value());
  outside_.host.Inject(Verb::kHandOver, {.kind = Fault::Kind::kVmmDies});
  const auto vm = Take();
  ASSERT_NE(vm, nullptr);
  ASSERT_TRUE(Fill().has_value());
  ASSERT_TRUE(Eventually([&] { return cache().vms().List().size() == 3; }));
  ExpectVms(3);
}

TEST_F(HandOverTest, NeedsAPool) {
  ASSERT_TRUE(Init(0).has_value());
  auto refused = Acquire(Params());
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(refused.error().message, HasSubstr("pool set"));
  auto missing = Params();
  missing.template_name = "other";
  refused = Acquire(std::move(missing));
  EXPECT_EQ(refused.error().code, Code::kNotFound);
  EXPECT_THAT(refused.error().message, HasSubstr("other"));
  ExpectVms(0);
}

TEST_F(HandOverTest, ClonesWhereThePoolIsEmptyAndMakesTheCloneUnique) {
  ASSERT_TRUE(Init(1).has_value());
  ASSERT_TRUE(Fill().has_value());
  const auto first = Take();
  ASSERT_NE(first, nullptr);
  auto second = Acquire(Params());
  ASSERT_TRUE(second.has_value()) << ToString(second.error());
  EXPECT_TRUE(second->vm->handed_over());
  EXPECT_NE(outside_.agents.guest(AgentOf(first)).machine_id,
            outside_.agents.guest(AgentOf(second->vm)).machine_id);
  EXPECT_NE(outside_.agents.guest(AgentOf(first)).boot_id,
            outside_.agents.guest(AgentOf(second->vm)).boot_id);
}

TEST_F(HandOverTest, SaysWhatWasHotAdded) {
  ASSERT_TRUE(Init(0).has_value());
  const auto taken = Acquire(FillLargerPool());
  ASSERT_TRUE(taken.has_value()) << ToString(taken.error());
  EXPECT_EQ(taken->handover->vcpus, 1u);
  EXPECT_EQ(taken->handover->hot_vcpus, (std::vector<std::string>{"cpu-0", "cpu-1"}));
  EXPECT_EQ(taken->offline_vcpus, 0u) << "its guest has had them online since it was warmed";
  EXPECT_EQ(taken->vm->record.vcpus(), 3u);
}

TEST_F(HandOverTest, SaysWhatItsGuestHasYetToBringOnline) {
  Finish();
  settings_.put_off = {.quiet = kLong, .refill = kLong, .destroy = {}};  // no refill in between
  Begin();
  ASSERT_TRUE(Init(1).has_value());
  const auto params = FillLargerPool();
  const auto own = Acquire(params);
  ASSERT_TRUE(own.has_value()) << ToString(own.error());
  EXPECT_EQ(own->offline_vcpus, 0u);
  // Its pool is empty: this one comes from that of the template's shape, and stands still.
  const auto grown = Acquire(params);
  ASSERT_TRUE(grown.has_value()) << ToString(grown.error());
  EXPECT_EQ(grown->source, Source::kPool);
  EXPECT_EQ(grown->handover->hot_vcpus, (std::vector<std::string>{"cpu-0", "cpu-1"}));
  EXPECT_EQ(grown->offline_vcpus, 2u);
  EXPECT_EQ(grown->vm->record.vcpus(), 3u);
  EXPECT_EQ(Bytes(grown->vm->record.memory_bytes()), Bytes::MiB(256));
}

TEST_F(HandOverTest, IsNotForRepeats) {
  ASSERT_TRUE(Init(1).has_value());
  auto params = Params();
  params.request_id = RequestId("r1");
  EXPECT_EQ(Acquire(std::move(params)).error().code, Code::kInvalidArgument);
}

TEST_F(HandOverTest, GoesToOneCallerEach) {
  ASSERT_TRUE(Init(4).has_value());
  ASSERT_TRUE(Fill().has_value());
  std::set<VmId> seen;
  TaskScope scope(outside_.io.get_executor());
  for (int i = 0; i < 20; ++i) {
    scope.Spawn(
        "take",
        [](Leases& leases, AcquireParams params, std::set<VmId>& ids) -> asio::awaitable<void> {
          auto taken = co_await leases.Acquire(std::move(params), After(kLong));
          EXPECT_TRUE(taken.has_value()) << ToString(taken.error());
          if (taken) EXPECT_TRUE(ids.insert(taken->vm->id()).second);
        }(cache().leases(), Params(), seen));
  }
  Run([](TaskScope& s) -> Task<void> {
    co_await s.Join();
    co_return Result<void>();
  }(scope))
      .value();
  EXPECT_EQ(seen.size(), 20u);
}

}  // namespace
}  // namespace hatchery::cache
