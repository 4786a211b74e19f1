#include "bench/text.h"

#include <gtest/gtest.h>

#include <limits>

namespace hatchery::bench {
namespace {

TEST(Text, NumbersHaveThreeDigits) {
  EXPECT_EQ(Text(Unit::kSeconds, 0.00124), "1.24 ms");
  EXPECT_EQ(Text(Unit::kBytes, 0), "0 B");
  EXPECT_EQ(Text(Unit::kBytes, 1023), "1.00 KiB");
  EXPECT_EQ(Text(Unit::kBytes, 17.34 * (1 << 20)), "17.3 MiB");
  EXPECT_EQ(Text(Unit::kBytes, 1.54 * (1 << 30)), "1.54 GiB");
  EXPECT_EQ(Text(Unit::kPerSecond, 8123.4), "8123/s");
  EXPECT_EQ(Text(0.5), "0.50");
  EXPECT_EQ(Text(9.999), "10.0");
  EXPECT_EQ(Text(99.96), "100");
  EXPECT_EQ(Text(Unit::kSeconds, std::nullopt), "-");
}

TEST(Text, AnyNumberHasOne) {
  for (const Unit unit : {Unit::kSeconds, Unit::kBytes, Unit::kPerSecond}) {
    for (const double value : {-1.0, 1e300, -1e300, std::numeric_limits<double>::infinity(),
                               std::numeric_limits<double>::quiet_NaN(), 1e-300}) {
      EXPECT_NE(Text(unit, value), "");
      EXPECT_LT(Text(unit, value).size(), 320u);
    }
  }
  EXPECT_EQ(Text(Unit::kSeconds, -0.5), "-500 ms");
}

TEST(Text, IntervalsNearOneSayOnWhichSide) {
  EXPECT_EQ(Text(Interval{1.001, 1.25}), "1.001 to 1.250");
  EXPECT_EQ(Text(Interval{0.05, 12.34}), "0.05 to 12.3");
}

TEST(Text, ShortenCountsCharacters) {
  EXPECT_EQ(Shorten("abc", 3), "abc");
  EXPECT_EQ(Shorten("abcd", 3), "ab…");
  EXPECT_EQ(Shorten("äöüß", 4), "äöüß");
  EXPECT_EQ(Shorten("äöüß", 3), "äö…");
}

}  // namespace
}  // namespace hatchery::bench
