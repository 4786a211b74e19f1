#include "base/bytes.h"

#include <gtest/gtest.h>

namespace hatchery {
namespace {

TEST(Bytes, ReadsTheUsualSpellings) {
  EXPECT_EQ(ParseBytes("1048576"), Bytes::MiB(1));
  EXPECT_EQ(ParseBytes("256M"), Bytes::MiB(256));
  EXPECT_EQ(ParseBytes("256MiB"), Bytes::MiB(256));
  EXPECT_EQ(ParseBytes("256 mb"), Bytes::MiB(256));
  EXPECT_EQ(ParseBytes("2g"), Bytes::GiB(2));
}

TEST(Bytes, RefusesWhatIsNoSize) {
  for (const char* bad :
       {"", "M", "-1", "12X", "1.5G", "1 G B", "0x10", "99999999999999999999", "16E"}) {
    EXPECT_FALSE(ParseBytes(bad).has_value()) << bad;
  }
}

TEST(Bytes, PrintsTheLargestFittingUnit) {
  EXPECT_EQ(ToString(Bytes(12)), "12 B");
  EXPECT_EQ(ToString(Bytes::MiB(256)), "256 MiB");
  EXPECT_EQ(ToString(Bytes::MiB(1536)), "1.5 GiB");
}

}  // namespace
}  // namespace hatchery
