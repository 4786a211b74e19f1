#include "cache/quarantine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"

namespace hatchery::cache {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::HasSubstr;

class QuarantineTest : public testing::Test {
 protected:
  auto Begin(const std::string& digest = "a") {
    return quarantine_.Begin(digest, "default", clock_.SinceBoot());
  }
  void Fail(int times, const std::string& digest = "a") {
    for (int i = 0; i < times; ++i) {
      auto attempt = Begin(digest);
      ASSERT_TRUE(attempt.has_value());
      attempt->Failed("no such device", clock_.SinceBoot());
    }
  }
  // How long it is refused from now, as its State says.
  std::chrono::nanoseconds Wait() { return quarantine_.Of("a")->until - clock_.SinceBoot(); }

  FakeClock clock_;
  Quarantine quarantine_{3};
};

TEST_F(QuarantineTest, BeginsAfterSoManyFailuresInARow) {
  Fail(2);
  Begin()->Succeeded();
  Fail(2);
  EXPECT_TRUE(Begin().has_value());
  EXPECT_FALSE(quarantine_.Of("a").has_value());
  Fail(1);
  const auto refused = Begin();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kUnavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("no such device"));
  EXPECT_GE(refused.error().retry_after, seconds(27));
  EXPECT_LE(refused.error().retry_after, seconds(33));
}

TEST_F(QuarantineTest, IsOfOneVersionAlone) {
  Fail(3);
  EXPECT_FALSE(Begin("a").has_value());
  EXPECT_TRUE(Begin("b").has_value());
}

TEST_F(QuarantineTest, LetsExactlyOneTryAndDoublesUpToItsLimit) {
  Fail(3);
  auto last = Wait();
  for (int round = 0; round < 8; ++round) {
    clock_.Advance(Wait() - seconds(1));
    EXPECT_FALSE(Begin().has_value());
    clock_.Advance(seconds(1));
    auto probe = Begin();
    ASSERT_TRUE(probe.has_value());
    EXPECT_FALSE(Begin().has_value()) << "a second one beside it";
    probe->Failed("still", clock_.SinceBoot());
    EXPECT_TRUE(Wait() == 2 * last || Wait() >= minutes(9)) << Wait().count();
    EXPECT_LE(Wait(), minutes(11));
    last = Wait();
  }
}

TEST_F(QuarantineTest, ASuccessfulProbeClearsIt) {
  Fail(3);
  clock_.Advance(Wait());
  Begin()->Succeeded();
  Fail(2);
  EXPECT_TRUE(Begin().has_value()) << "it counts from the beginning";
}

TEST_F(QuarantineTest, AProbeThatTellsNothingLetsTheNextOneTry) {
  Fail(3);
  clock_.Advance(Wait());
  {
    const auto cancelled = Begin();
  }
  EXPECT_TRUE(Begin().has_value());
}

TEST_F(QuarantineTest, ClonesThatWereBegunBeforeDoNotProlongIt) {
  auto earlier = Begin();
  Fail(3);
  const auto wait = Wait();
  earlier->Failed("as the others", clock_.SinceBoot());
  EXPECT_EQ(Wait(), wait);
  EXPECT_EQ(quarantine_.Of("a")->failures, 4u);
}

TEST_F(QuarantineTest, WhoAsksForItIsTriedAtOnce) {
  Fail(3);
  quarantine_.Hurry("a");
  auto probe = Begin();
  ASSERT_TRUE(probe.has_value());
  EXPECT_FALSE(Begin().has_value());
}

}  // namespace
}  // namespace hatchery::cache
