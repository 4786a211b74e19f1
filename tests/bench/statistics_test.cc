#include "bench/statistics.h"

#include <gtest/gtest.h>

#include <numeric>

namespace hatchery::bench {
namespace {

TEST(Statistics, PercentilesAreSamplesByNearestRank) {
  // The example of Wikipedia's article "Percentile".
  const std::vector<double> samples = {50, 15, 40, 20, 35};
  EXPECT_EQ(Percentile(samples, 5), 15);
  EXPECT_EQ(Percentile(samples, 30), 20);
  EXPECT_EQ(Percentile(samples, 40), 20);
  EXPECT_EQ(Percentile(samples, 50), 35);
  EXPECT_EQ(Percentile(samples, 100), 50);
}

TEST(Statistics, OfAHundredSamplesThe99thIsTheLastButOne) {
  std::vector<double> samples(100);
  std::iota(samples.rbegin(), samples.rend(), 1);
  EXPECT_EQ(Summarize(samples), (Summary{100, 50, 99, 100}));
}

TEST(Statistics, OneSampleIsEveryPercentile) { EXPECT_EQ(Summarize({7}), (Summary{1, 7, 7, 7})); }

TEST(Statistics, NoSamplesAreZero) { EXPECT_EQ(Summarize({}), Summary{}); }

}  // namespace
}  // namespace hatchery::bench
