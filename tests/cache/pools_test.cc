#include "cache/pools.h"

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

class PoolsTest : public CacheFixture {};

TEST_F(PoolsTest, APoolRemovedWhileItClonesLeavesItsPlaceToOthers) {
  Finish();
  settings_.parallel_clones = 1;
  Begin();
  ASSERT_TRUE(Init(0).has_value());
  ASSERT_TRUE(Init(0, "second").has_value());
  auto set = [&](std::string name, std::uint32_t target) {
    return Run(
        cache().pools().Set(std::move(name), std::nullopt, std::nullopt, target, After(kLong)));
  };
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kHang});
  ASSERT_TRUE(set("default", 1).has_value());
  const auto key = set("second", 1).value();
  ASSERT_TRUE(set("default", 0).has_value());
  auto filled = Run(cache().pools().WaitFilled(key, [](const PoolInfo&) {}, After(10 * kMoment)));
  EXPECT_TRUE(filled.has_value()) << ToString(filled.error());
}

TEST_F(PoolsTest, SettingAPoolThatBacksOffClonesAtOnce) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kFail, {Code::kInternal, "bad state"}}, 2);
  auto set = [&] {
    return Run(cache().pools().Set("default", std::nullopt, std::nullopt, 2, After(kLong)));
  };
  ASSERT_TRUE(set().has_value());
  while (OnlyPool().last_error.empty() || OnlyPool().filling > 0) {
    ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
  }
  ASSERT_TRUE(set().has_value());
  EXPECT_EQ(OnlyPool().filling, 2u);
  ASSERT_TRUE(Fill().has_value());
}

TEST_F(PoolsTest, PoolsFollowATemplateWhoseShapeChanges) {
  ASSERT_TRUE(Init(2).has_value());
  ASSERT_TRUE(Run(cache().pools().Set("default", 1, Bytes::MiB(256), 1, After(kLong))).has_value());
  ASSERT_TRUE(Run(cache().pools().Set("default", 3, Bytes::MiB(512), 1, After(kLong))).has_value());
  TemplateSpec spec;
  spec.vcpus = 2;
  spec.memory = Bytes::MiB(384);
  ASSERT_TRUE(Run(cache().catalog().Create(spec, false, [](std::string) {}, After(kLong))));
  ASSERT_TRUE(Fill().has_value());
  // The template's own shape moved along; 1 vCPU is less than there is now; 3 and 512 MiB still
  // fit.
  std::vector<std::string> keys;
  for (const auto& pool : cache().pools().List()) keys.push_back(pool.key);
  EXPECT_EQ(keys, (std::vector<std::string>{"default/2/402653184", "default/3/536870912"}));
  const auto acquired = Acquire();
  ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
  EXPECT_EQ(acquired->source, Source::kPool);
  EXPECT_EQ(acquired->vm->record.vcpus(), 2u);
  // And so it is after a restart.
  EXPECT_EQ(outside_.store.Scan(Table::kPools).value().size(), 2u);
}

TEST_F(PoolsTest, ATemplatesPoolMovesOntoOneThatIsThereAlready) {
  ASSERT_TRUE(Init(2).has_value());
  ASSERT_TRUE(Run(cache().pools().Set("default", 2, Bytes::MiB(256), 3, After(kLong))).has_value());
  // Its clones are being made when the template's shape becomes theirs.
  TemplateSpec spec;
  spec.vcpus = 2;
  spec.memory = Bytes::MiB(256);
  ASSERT_TRUE(Run(cache().catalog().Create(spec, false, [](std::string) {}, After(kLong))));
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(OnlyPool().key, "default/2/268435456");
  EXPECT_EQ(OnlyPool().warm, 3u);
  ASSERT_TRUE(Run(cache().vms().EndAll(
                      [](const VmEntry& vm) { return vm.phase() == record::VM_PHASE_RELEASED; }, "",
                      After(kLong)))
                  .has_value());
  ExpectVms(3);
}

class LearnedPoolsTest : public CacheFixture {
 protected:
  explicit LearnedPoolsTest(bool keep_warm = false) : CacheFixture(keep_warm) {
    Finish();
    settings_.learn.after = 3;
    settings_.learn.window = std::chrono::minutes(10);
    Begin();
    EXPECT_TRUE(Init(1).has_value());
  }

  // Acquires and gives back a VM that is larger than the template.
  Source AskForTwo() {
    auto acquired = Acquire({.vcpus = 2});
    EXPECT_TRUE(acquired.has_value()) << ToString(acquired.error());
    EXPECT_EQ(acquired->vm->record.vcpus(), 2u);
    EXPECT_TRUE(Release(acquired->vm).has_value());
    EXPECT_TRUE(Fill().has_value());
    return acquired->source;
  }
  void LearnTwo() {
    for (int i = 0; i < 3; ++i) AskForTwo();
    while (!Learned()) ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
    ASSERT_TRUE(Fill().has_value());
  }
  std::optional<PoolInfo> Learned() {
    for (const auto& pool : cache().pools().List()) {
      if (pool.learned) return pool;
    }
    return std::nullopt;
  }
  void SettleAt(std::size_t vms) {
    while (outside_.store.Scan(Table::kVms).value().size() != vms) {
      ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
    }
    ExpectVms(vms);
  }
};

TEST_F(LearnedPoolsTest, AShapeThatIsAskedForOftenIsPooled) {
  AskForTwo();
  AskForTwo();
  cache().pools().Learn();
  EXPECT_FALSE(Learned().has_value());
  AskForTwo();
  while (!Learned()) ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(Learned()->vcpus, 2u);
  EXPECT_EQ(Learned()->warm, 1u);
  const auto acquired = Acquire({.vcpus = 2});
  EXPECT_EQ(acquired->vm->record.pool_key(), Learned()->key);
  EXPECT_EQ(Learned()->hits, 1u);
}

TEST_F(LearnedPoolsTest, TheTemplatesOwnShapeIsNotLearned) {
  ASSERT_TRUE(Init(0).has_value());  // an operator who wants no pool of it gets none
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(Release(Acquire()->vm).has_value());
    ASSERT_TRUE(Fill().has_value());
  }
  cache().pools().Learn();
  EXPECT_FALSE(Learned().has_value());
}

TEST_F(LearnedPoolsTest, GoesWithItsIdleVmsWhenNobodyAsksAnyMoreButNotWithALeasedOne) {
  LearnTwo();
  const auto leased = Acquire({.vcpus = 2})->vm;
  ASSERT_EQ(leased->record.pool_key(), Learned()->key);
  ASSERT_TRUE(Fill().has_value());
  outside_.clock.Advance(std::chrono::minutes(11));
  cache().pools().Learn();
  EXPECT_FALSE(Learned().has_value());
  SettleAt(2);  // the leased one, and the operator's
  EXPECT_EQ(leased->phase(), record::VM_PHASE_ASSIGNED);
  EXPECT_EQ(OnlyPool().warm, 1u);
  EXPECT_EQ(outside_.store.Scan(Table::kPools).value().size(), 1u);
}

TEST_F(LearnedPoolsTest, AnOperatorWhoSetsItMakesItHis) {
  LearnTwo();
  ASSERT_TRUE(Run(cache().pools().Set("default", 2, std::nullopt, 2, After(kLong))).has_value());
  ASSERT_TRUE(Fill().has_value());
  EXPECT_FALSE(Learned().has_value());
  outside_.clock.Advance(std::chrono::minutes(11));
  cache().pools().Learn();
  EXPECT_EQ(cache().pools().List().size(), 2u);
  SettleAt(3);
}

TEST_F(LearnedPoolsTest, GoesWithItsTemplate) {
  LearnTwo();
  ASSERT_TRUE(Run(cache().DeleteTemplate("default", true, [](StepProgress) {}, After(kLong))));
  cache().pools().Learn();
  EXPECT_TRUE(cache().pools().List().empty());
  ExpectVms(0);
}

TEST_F(LearnedPoolsTest, GoesWhenItsShapeBecomesTheTemplates) {
  LearnTwo();
  TemplateSpec spec;
  spec.vcpus = 2;
  ASSERT_TRUE(Run(cache().catalog().Create(spec, false, [](std::string) {}, After(kLong))));
  ASSERT_TRUE(Fill().has_value());
  EXPECT_FALSE(OnlyPool().learned);
  EXPECT_EQ(OnlyPool().vcpus, 2u);
  EXPECT_EQ(OnlyPool().target, 1u);
  SettleAt(1);
}

TEST_F(LearnedPoolsTest, AnOperatorsPoolIsRefilledFirst) {
  ASSERT_TRUE(Init(1, "zoo").has_value());  // by its key, after the learned one
  LearnTwo();
  Finish();
  settings_.parallel_clones = 1;
  outside_.host.Inject(Verb::kStart, {Fault::Kind::kHang});
  Begin();
  for (const auto& pool : cache().pools().List()) {
    EXPECT_EQ(pool.filling, pool.key.starts_with("default/1/") ? 1u : 0u) << pool.key;
  }
  const auto first =
      Run(cache().pools().Set("default", std::nullopt, std::nullopt, 0, After(kLong)));
  ASSERT_TRUE(first.has_value());
  while (cache().pools().List().at(1).warm == 0) {
    EXPECT_EQ(Learned()->warm, 0u);
    ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
  }
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(Learned()->warm, 1u);
}

class LearnedPoolsRecoveryTest : public LearnedPoolsTest {
 protected:
  LearnedPoolsRecoveryTest() : LearnedPoolsTest(/*keep_warm=*/true) {}
};

TEST_F(LearnedPoolsRecoveryTest, ARestartKeepsItsWarmVmsForAnotherWindow) {
  LearnTwo();
  const auto spawned = outside_.host.calls(Verb::kStart);
  outside_.clock.Advance(std::chrono::hours(1));
  Die();
  Begin();
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(Learned()->warm, 1u);
  EXPECT_EQ(outside_.host.calls(Verb::kStart), spawned);
  outside_.clock.Advance(std::chrono::minutes(11));
  cache().pools().Learn();
  EXPECT_FALSE(Learned().has_value());
  SettleAt(1);
}

TEST_F(LearnedPoolsRecoveryTest, ARestartThatDoesNotLearnEndsIt) {
  LearnTwo();
  Die();
  settings_.learn.enabled = false;
  Begin();
  EXPECT_FALSE(Learned().has_value());
  SettleAt(1);
  for (int i = 0; i < 4; ++i) AskForTwo();
  cache().pools().Learn();
  EXPECT_FALSE(Learned().has_value());
}

}  // namespace
}  // namespace hatchery::cache
