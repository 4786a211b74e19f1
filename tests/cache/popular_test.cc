#include "cache/popular.h"

#include <gtest/gtest.h>

namespace hatchery::cache {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

class PopularTest : public testing::Test {
 protected:
  void Ask(const PooledShape& shape, int times = 1) {
    for (int i = 0; i < times; ++i) differs_ = popular_.Asked(shape, clock_.Now());
  }
  std::map<PooledShape, std::uint32_t> Wanted() { return popular_.Wanted(clock_.Now()); }
  static PooledShape Shape(std::uint32_t vcpus, Bytes memory = Bytes::MiB(256),
                           std::string name = "default") {
    return {std::move(name), vcpus, memory};
  }

  FakeClock clock_;
  LearnSettings settings_{
      .after = 3, .window = minutes(10), .size = 2, .pools = 2, .memory = Bytes::GiB(1)};
  Popular popular_{settings_};
  bool differs_ = false;
};

TEST_F(PopularTest, WhatIsAskedForOftenGetsAPool) {
  Ask(Shape(2), 2);
  EXPECT_FALSE(differs_);
  EXPECT_TRUE(Wanted().empty());
  Ask(Shape(2));
  EXPECT_TRUE(differs_);
  EXPECT_EQ(Wanted(), (std::map<PooledShape, std::uint32_t>{{Shape(2), 1}}));
  Ask(Shape(2));
  EXPECT_FALSE(differs_) << "it has it";
}

TEST_F(PopularTest, RequestsFarApartDoNotAddUp) {
  for (int i = 0; i < 10; ++i) {
    Ask(Shape(2));
    clock_.Advance(minutes(6));
  }
  EXPECT_TRUE(Wanted().empty());
}

TEST_F(PopularTest, GrowsWithDemandUpToItsSize) {
  Ask(Shape(2), 6);
  EXPECT_EQ(Wanted().at(Shape(2)), 2u);
  Ask(Shape(2), 1000);
  EXPECT_EQ(Wanted().at(Shape(2)), 2u);
}

TEST_F(PopularTest, StaysWhileAnybodyAsksAndGoesAfterAWindowWithout) {
  Ask(Shape(2), 3);
  ASSERT_EQ(Wanted().size(), 1u);
  for (int i = 0; i < 5; ++i) {
    clock_.Advance(minutes(9));
    Ask(Shape(2));
    EXPECT_EQ(Wanted().size(), 1u);
  }
  clock_.Advance(minutes(10));
  EXPECT_EQ(Wanted().size(), 1u);
  clock_.Advance(seconds(1));
  EXPECT_TRUE(Wanted().empty());
}

TEST_F(PopularTest, DoesNotGoToAndFro) {
  settings_.size = 9;
  popular_ = Popular(settings_);
  Ask(Shape(2), 3);
  clock_.Advance(minutes(9));
  Ask(Shape(2), 3);
  EXPECT_EQ(Wanted().at(Shape(2)), 2u);
  clock_.Advance(minutes(2));  // the first three are too old
  EXPECT_EQ(Wanted().at(Shape(2)), 2u);
  clock_.Advance(minutes(5));
  Ask(Shape(2));
  clock_.Advance(minutes(4));  // the second three as well
  EXPECT_EQ(Wanted().at(Shape(2)), 1u);
}

TEST_F(PopularTest, ATemplateHasSoManyPoolsAndNoMore) {
  Ask(Shape(2), 2);
  clock_.Advance(minutes(1));
  Ask(Shape(2));
  Ask(Shape(3), 3);
  ASSERT_EQ(Wanted().size(), 2u);
  Ask(Shape(4), 5);
  EXPECT_FALSE(Wanted().contains(Shape(4))) << "those that are there count double";
  Ask(Shape(2, Bytes::MiB(256), "other"), 3);
  EXPECT_EQ(Wanted().size(), 3u) << "each template has its own";
  clock_.Advance(seconds(570));
  EXPECT_TRUE(Wanted().contains(Shape(4)));
  EXPECT_TRUE(Wanted().contains(Shape(3)));
  EXPECT_FALSE(Wanted().contains(Shape(2))) << "the least asked for";
}

TEST_F(PopularTest, AllOfThemTogetherHaveSoMuchMemoryAndNoMore) {
  Ask(Shape(2, Bytes::MiB(384)), 6);
  EXPECT_EQ(Wanted().at(Shape(2, Bytes::MiB(384))), 2u);
  Ask(Shape(2, Bytes::MiB(256), "other"), 6);
  EXPECT_EQ(Wanted().at(Shape(2, Bytes::MiB(256), "other")), 1u) << "1024 - 2 * 384 is 256";
  Ask(Shape(2, Bytes::GiB(2)), 6);
  EXPECT_FALSE(Wanted().contains(Shape(2, Bytes::GiB(2))));
}

TEST_F(PopularTest, ARestoredPoolHasAWindowToProveItself) {
  popular_.Restore(Shape(2), 2, clock_.Now());
  EXPECT_EQ(Wanted().at(Shape(2)), 1u);
  clock_.Advance(minutes(5));
  Ask(Shape(2));
  clock_.Advance(minutes(8));
  EXPECT_EQ(Wanted().at(Shape(2)), 1u);
  clock_.Advance(minutes(11));
  EXPECT_TRUE(Wanted().empty());
}

TEST_F(PopularTest, WhatIsForgottenStartsAnew) {
  Ask(Shape(2), 3);
  popular_.Forget(Shape(2));
  EXPECT_TRUE(Wanted().empty());
  Ask(Shape(2), 2);
  EXPECT_TRUE(Wanted().empty());
}

TEST_F(PopularTest, LearnsNothingWhenDisabled) {
  settings_.enabled = false;
  popular_ = Popular(settings_);
  Ask(Shape(2), 100);
  popular_.Restore(Shape(3), 1, clock_.Now());
  EXPECT_FALSE(differs_);
  EXPECT_TRUE(Wanted().empty());
}

TEST_F(PopularTest, RemembersSoManyShapesAndNoMore) {
  Ask(Shape(1), 2);
  clock_.Advance(seconds(1));
  for (std::uint32_t i = 2; i < 2 + Popular::kMaxShapes; ++i) Ask(Shape(i));
  Ask(Shape(1));
  EXPECT_TRUE(Wanted().empty()) << "the first two were forgotten";
}

}  // namespace
}  // namespace hatchery::cache
