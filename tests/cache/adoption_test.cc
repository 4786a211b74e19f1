// Taking VMs over that answer late, or not at all, and reaching those that were lost.
#include "cache/adoption.h"

#include <gmock/gmock.h>

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using testing::HasSubstr;

class AdoptionTest : public CacheFixture {
 protected:
  AdoptionTest() : CacheFixture(/*keep_warm=*/true) {}

  VmPtr Leased(const VmId& id) {
    const auto vm = cache().vms().Find(id);
    EXPECT_NE(vm, nullptr);
    if (vm) EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
    return vm;
  }
  Result<agent::ExecResult> Exec(const VmId& id) {
    return Run(cache().leases().Exec({}, id, {.argv = {"true"}}, After(kLong)));
  }
  // One that is leased, by a daemon that died while its VMM answers nobody.
  VmId FrozenAndLeft() {
    EXPECT_TRUE(Init(0).has_value());
    const auto id = Acquire({.request_id = RequestId("r1")})->vm->id();
    Die();
    EXPECT_TRUE(outside_.host.Freeze(id).has_value());
    return id;
  }
};

TEST_F(AdoptionTest, ALeasedVmThatDoesNotAnswerStaysLeasedAndIsReachedWhenItDoes) {
  const auto id = FrozenAndLeft();
  Begin();
  const auto vm = Leased(id);
  ASSERT_NE(vm, nullptr);
  EXPECT_EQ(Exec(id).error().code, Code::kUnavailable);
  ASSERT_TRUE(Eventually([&] { return !vm->problem.empty(); }));
  EXPECT_THAT(vm->problem, HasSubstr("its VMM cannot be reached"));
  // Somebody who asks for it again gets it all the same.
  EXPECT_EQ(Acquire({.request_id = RequestId("r1")})->vm, vm);

  ASSERT_TRUE(outside_.host.Thaw(id).has_value());
  ASSERT_TRUE(Eventually([&] { return vm->problem.empty(); }));
  auto ran = Exec(id);
  EXPECT_TRUE(ran.has_value()) << ToString(ran.error());
  ExpectVms(1);
}

TEST_F(AdoptionTest, AnUnreachableVmCanBeReleased) {
  const auto id = FrozenAndLeft();
  Begin();
  ASSERT_TRUE(Release(Leased(id)).has_value());
  ExpectVms(0);
}

TEST_F(AdoptionTest, AnUnreachableVmThatDiesEndsItsLease) {
  const auto id = FrozenAndLeft();
  Begin();
  ASSERT_NE(Leased(id), nullptr);
  ASSERT_TRUE(outside_.host.Kill(id).has_value());
  ASSERT_TRUE(Eventually([&] { return cache().vms().Find(id) == nullptr; }));
  EXPECT_EQ(Acquire({.request_id = RequestId("r1")}).error().code, Code::kFailedPrecondition);
  ExpectVms(0);
}

TEST_F(AdoptionTest, AnUnreachableVmSurvivesAnotherDaemon) {
  const auto id = FrozenAndLeft();
  Begin();
  Die();
  Begin();
  ASSERT_TRUE(outside_.host.Thaw(id).has_value());
  ASSERT_TRUE(Eventually([&] { return Exec(id).has_value(); }));
}

TEST_F(AdoptionTest, AWarmVmThatDoesNotAnswerIsReplaced) {
  ASSERT_TRUE(Init(2).has_value());
  Die();
  const auto frozen = outside_.host.live().front();
  ASSERT_TRUE(outside_.host.Freeze(frozen).has_value());
  const auto before = std::chrono::steady_clock::now();
  Begin();
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(1500));
  EXPECT_EQ(OnlyPool().warm, 1u);
  ASSERT_TRUE(Fill().has_value());
  ASSERT_TRUE(Eventually([&] { return cache().vms().Find(frozen) == nullptr; }));
  ASSERT_TRUE(Eventually([&] { return outside_.host.live().size() == 2; }));
  EXPECT_EQ(OnlyPool().warm, 2u);
  ExpectVms(2);
}

TEST_F(AdoptionTest, ManyAreTakenOverAtOnce) {
  constexpr std::uint32_t kMany = 30;
  ASSERT_TRUE(Init(kMany).has_value());
  const auto started = outside_.host.calls(Verb::kStart);
  Die();
  // One after the other they would take 3 s, and the daemon serves after half a second.
  outside_.host.SetDelay(Verb::kReconnect, std::chrono::milliseconds(100));
  Begin();
  EXPECT_EQ(OnlyPool().warm, kMany);
  EXPECT_EQ(outside_.host.calls(Verb::kStart), started);
}

TEST_F(AdoptionTest, AnAgentWhoseConnectionIsLostIsDialledAgain) {
  ASSERT_TRUE(Init(0).has_value());
  const auto id = Acquire()->vm->id();
  outside_.agents.GarbleNext(agent::Method::kExec);
  EXPECT_EQ(Exec(id).error().code, Code::kUnavailable);
  EXPECT_EQ(Exec(id).error().code, Code::kUnavailable);
  ASSERT_TRUE(Eventually([&] { return Leased(id)->machine->agent->usable(); }));
  EXPECT_TRUE(Exec(id).has_value());
}

TEST_F(AdoptionTest, ALeasedVmWhoseControlChannelIsLostStaysLeased) {
  ASSERT_TRUE(Init(0).has_value());
  const auto id = Acquire()->vm->id();
  ASSERT_TRUE(outside_.host.Cut(id).has_value());
  EXPECT_FALSE(Leased(id)->machine->vm->reachable());
  ASSERT_TRUE(Eventually([&] { return Leased(id)->machine->vm->reachable(); }));
  EXPECT_TRUE(Exec(id).has_value());
  EXPECT_EQ(Leased(id)->problem, "");
}

TEST_F(AdoptionTest, AWarmVmThatIsLostForGoodIsReplaced) {
  ASSERT_TRUE(Init(1).has_value());
  const auto lost = outside_.host.live().front();
  ASSERT_TRUE(outside_.host.Freeze(lost).has_value());
  ASSERT_TRUE(outside_.host.Cut(lost).has_value());
  ASSERT_TRUE(Eventually([&] { return cache().vms().Find(lost) == nullptr; }));
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(1);
}

}  // namespace
}  // namespace hatchery::cache
