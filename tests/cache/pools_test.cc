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

}  // namespace
}  // namespace hatchery::cache
