#include "cache/vms.h"

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

TEST(VmPhases, FollowTheTable) {
  using enum record::VmPhase;
  const std::vector<Phase> all = {VM_PHASE_BOOTING,  VM_PHASE_SPAWNING, VM_PHASE_LOADED,
                                  VM_PHASE_WARMING,  VM_PHASE_WARM,     VM_PHASE_ASSIGNED,
                                  VM_PHASE_RELEASED, VM_PHASE_FAILED};
  const std::set<std::pair<Phase, Phase>> allowed = {
      {VM_PHASE_SPAWNING, VM_PHASE_LOADED}, {VM_PHASE_LOADED, VM_PHASE_WARMING},
      {VM_PHASE_WARMING, VM_PHASE_WARM},    {VM_PHASE_WARM, VM_PHASE_ASSIGNED},
      {VM_PHASE_WARM, VM_PHASE_RELEASED},   {VM_PHASE_ASSIGNED, VM_PHASE_RELEASED},
      {VM_PHASE_SPAWNING, VM_PHASE_FAILED}, {VM_PHASE_LOADED, VM_PHASE_FAILED},
      {VM_PHASE_WARMING, VM_PHASE_FAILED},  {VM_PHASE_WARM, VM_PHASE_FAILED},
      {VM_PHASE_ASSIGNED, VM_PHASE_FAILED},
  };
  for (const Phase from : all) {
    for (const Phase to : all) {
      EXPECT_EQ(MayEnter(from, to), allowed.contains({from, to}))
          << PhaseName(from) << " -> " << PhaseName(to);
    }
  }
}

class VmsTest : public CacheFixture {};

// Every phase is on record before the VM gets there: what the store held when a verb was begun.
TEST_F(VmsTest, EveryStepIsRecordedBeforeItHappens) {
  ASSERT_TRUE(Init(0).has_value());
  std::vector<Phase> recorded;
  outside_.store.before_write = [&](const KvStore::Batch& batch) -> Result<void> {
    for (const auto& change : batch.changes()) {
      record::VmRecord r;
      if (change.table != Table::kVms || change.is_delete) continue;
      EXPECT_TRUE(r.ParseFromString(change.value));
      // The n-th phase is written before the verb that makes it true.
      switch (r.phase()) {
        case record::VM_PHASE_SPAWNING: EXPECT_EQ(outside_.host.live().size(), 0u); break;
        case record::VM_PHASE_ASSIGNED:
          if (recorded.back() == record::VM_PHASE_WARM) {
            EXPECT_EQ(outside_.agents.CountCalls(agent::Method::kPersonalize), 0u);
          }
          break;
        case record::VM_PHASE_RELEASED: EXPECT_EQ(outside_.host.live().size(), 1u); break;
        default: break;
      }
      recorded.push_back(r.phase());
    }
    return {};
  };
  const auto vm = Acquire()->vm;
  ASSERT_TRUE(Release(vm).has_value());
  outside_.store.before_write = nullptr;
  EXPECT_EQ(recorded, (std::vector<Phase>{record::VM_PHASE_SPAWNING, record::VM_PHASE_LOADED,
                                          record::VM_PHASE_WARMING, record::VM_PHASE_WARM,
                                          record::VM_PHASE_ASSIGNED, record::VM_PHASE_ASSIGNED,
                                          record::VM_PHASE_RELEASED}));
}

TEST_F(VmsTest, ACloneThatFailsAtAnyVerbLeavesNothing) {
  ASSERT_TRUE(Init(0).has_value());
  const auto digest = cache().catalog().DigestOf("default")->str();
  for (const Verb verb : {Verb::kStart, Verb::kLoad, Verb::kResume, Verb::kPause}) {
    for (const auto kind : {Fault::Kind::kFail, Fault::Kind::kVmmDies}) {
      outside_.host.Inject(verb, {kind, {Code::kInternal, "injected"}}, 3);
      cache().vms().quarantine().Forget(digest);
      EXPECT_FALSE(Acquire().has_value()) << static_cast<int>(verb);
      Run(cache().vms().EndAll([](const VmEntry&) { return true; }, "", After(kLong))).value();
      ExpectVms(0);
    }
  }
}

TEST_F(VmsTest, ACloneThatHangsEndsAtItsDeadlineAndLeavesNothing) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kHang});
  EXPECT_EQ(Acquire({}, kMoment).error().code, Code::kDeadlineExceeded);
  ExpectVms(0);
}

TEST_F(VmsTest, AFailedCloneStaysOnRecordUntilItsVmmIsGone) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kFail, {Code::kInternal, "bad state"}});
  outside_.host.Inject(Verb::kStop, {Fault::Kind::kHang});  // as long as the clone tries
  outside_.host.Inject(Verb::kStop, {Fault::Kind::kFail, {Code::kInternal, "stuck"}}, 3);
  EXPECT_FALSE(Acquire().has_value());
  ExpectVms(1);
  cache().adoption().Look();  // at one that never had an agent
  Run(cache().vms().EndAll([](const VmEntry&) { return true; }, "", After(kLong))).value();
  ExpectVms(0);
}

}  // namespace
}  // namespace hatchery::cache
