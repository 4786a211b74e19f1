#include "base/duration.h"

#include <gtest/gtest.h>

namespace hatchery {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

TEST(Duration, ReadsTheUsualUnits) {
  EXPECT_EQ(ParseDuration("500ms"), milliseconds(500));
  EXPECT_EQ(ParseDuration("10s"), seconds(10));
  EXPECT_EQ(ParseDuration("2m"), minutes(2));
  EXPECT_EQ(ParseDuration("1h"), hours(1));
  EXPECT_EQ(ParseDuration("7us"), microseconds(7));
  EXPECT_EQ(ParseDuration("0s"), seconds(0));
}

TEST(Duration, RefusesWhatIsNoDuration) {
  for (const char* bad : {"", "s", "10", "-1s", "1.5s", "10 s", "10d", "9999999999999h",
                          "99999999999999999999s", "10ss"}) {
    const auto parsed = ParseDuration(bad);
    ASSERT_FALSE(parsed.has_value()) << bad;
    EXPECT_NE(parsed.error().message.find("'" + std::string(bad) + "'"), std::string::npos);
  }
}

TEST(Duration, PrintsExactlyWhatItReads) {
  for (const char* text : {"0s", "500ms", "90s", "2m", "1h", "1ns", "1500us"}) {
    EXPECT_EQ(ToString(*ParseDuration(text)), text);
  }
}

TEST(Duration, PrintsForPeople) {
  EXPECT_EQ(ToHuman(microseconds(640)), "640 us");
  EXPECT_EQ(ToHuman(nanoseconds(1'240'000)), "1.24 ms");
  EXPECT_EQ(ToHuman(milliseconds(2412)), "2.41 s");
  EXPECT_EQ(ToHuman(seconds(192)), "3m12s");
  EXPECT_EQ(ToHuman(hours(49) + minutes(3)), "2d1h");
}

}  // namespace
}  // namespace hatchery
