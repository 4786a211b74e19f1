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

}  // namespace
}  // namespace hatchery::cache
