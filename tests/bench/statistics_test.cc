#include "bench/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/math/distributions/exponential.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/uniform.hpp>
#include <boost/random/exponential_distribution.hpp>
#include <boost/random/mersenne_twister.hpp>
#include <boost/random/normal_distribution.hpp>
#include <boost/random/uniform_real_distribution.hpp>
#include <cmath>
#include <functional>
#include <numeric>

namespace hatchery::bench {
namespace {

using Random = boost::random::mt19937_64;  // the same numbers on every host

template <class Distribution>
std::vector<double> Draw(Random& random, Distribution distribution, std::size_t count) {
  std::vector<double> samples(count);
  std::ranges::generate(samples, [&] { return distribution(random); });
  return samples;
}

std::vector<double> Latencies(Random& random, std::size_t count, double scale = 1) {
  // A floor and a tail, as latencies have.
  auto samples = Draw(random, boost::random::exponential_distribution<>(2.0), count);
  for (double& sample : samples) sample = scale * (1 + sample);
  return samples;
}
const double kLatencyMedian = 1 + std::log(2.0) / 2;

TEST(Statistics, PercentilesAreSamplesByNearestRank) {
  const std::vector<double> samples = {50, 15, 40, 20, 35};
  EXPECT_EQ(Percentile(samples, 5), 15);
  EXPECT_EQ(Percentile(samples, 30), 20);
  EXPECT_EQ(Percentile(samples, 40), 20);
  EXPECT_EQ(Percentile(samples, 50), 35);
  EXPECT_EQ(Percentile(samples, 100), 50);
  EXPECT_EQ(Percentile({}, 50), 0);
}

TEST(Statistics, RanksAreNotOffByARoundingError) {
  std::vector<double> samples(1000);
  std::iota(samples.rbegin(), samples.rend(), 1);
  EXPECT_EQ(Percentile(samples, 99.9), 999);
  EXPECT_EQ(Percentile(samples, 99), 990);
  EXPECT_EQ(Percentile(samples, 95), 950);
}

TEST(Statistics, APercentileNeedsASampleBeyondIt) {
  for (const auto& [percent, needed] :
       std::vector<std::pair<double, std::size_t>>{{90, 10}, {95, 20}, {99, 100}, {99.9, 1000}}) {
    EXPECT_FALSE(Allows(needed - 1, percent)) << percent;
    EXPECT_TRUE(Allows(needed, percent)) << percent;
  }
  EXPECT_TRUE(Allows(1, 50));
  EXPECT_FALSE(Allows(0, 50));
}

TEST(Statistics, TheSummaryLeavesOutWhatTheSamplesDoNotAllow) {
  Series series;
  series.samples.resize(100);
  std::iota(series.samples.rbegin(), series.samples.rend(), 1);
  const Summary summary = Summarize(series);
  EXPECT_EQ(summary.count, 100u);
  EXPECT_EQ(summary.min, 1);
  EXPECT_EQ(summary.p50, 50);
  EXPECT_EQ(summary.p90, 90);
  EXPECT_EQ(summary.p95, 95);
  EXPECT_EQ(summary.p99, 99);
  EXPECT_EQ(summary.p999, std::nullopt);
  EXPECT_EQ(summary.max, 100);
  EXPECT_DOUBLE_EQ(*summary.mean, 50.5);
}

TEST(Statistics, FailuresCountAsAttempts) {
  const Summary summary =
      Summarize({.samples = {1, 2, 3}, .failures = {{"deadline", 4}, {"refused", 1}}});
  EXPECT_EQ(summary.count, 3u);
  EXPECT_EQ(summary.failed, 5u);
  EXPECT_DOUBLE_EQ(*summary.success_rate, 3.0 / 8);
}

TEST(Statistics, WithoutSamplesThereIsNothingToTell) {
  const Summary none = Summarize({});
  EXPECT_EQ(none.success_rate, std::nullopt) << "nothing was attempted";
  EXPECT_EQ(none.p50, std::nullopt);
  const Summary failed = Summarize({.failures = {{"refused", 2}}});
  EXPECT_EQ(failed.success_rate, 0);
  EXPECT_EQ(failed.max, std::nullopt);
  EXPECT_EQ(Compute({}, Statistic::kSum), std::nullopt);
}

TEST(Statistics, OneStatisticAtATime) {
  const std::vector<double> samples = {4, 1, 3, 2};
  EXPECT_EQ(Compute(samples, Statistic::kMin), 1);
  EXPECT_EQ(Compute(samples, Statistic::kP50), 2);
  EXPECT_EQ(Compute(samples, Statistic::kP99), 4) << "the maximum stands in";
  EXPECT_EQ(Compute(samples, Statistic::kMax), 4);
  EXPECT_EQ(Compute(samples, Statistic::kMean), 2.5);
  EXPECT_EQ(Compute(samples, Statistic::kSum), 10);
}

// Percentiles of many samples come close to the quantiles that the distribution is known to have:
// within five standard errors, sqrt(p (1 - p) / n) / density.
template <class Known, class Sampled>
void ExpectKnownQuantiles(const Known& known, const Sampled& sampled) {
  constexpr std::size_t kCount = 100'000;
  Random random(7);
  Series series{.samples = Draw(random, sampled, kCount)};
  const Summary summary = Summarize(series);
  const std::vector<std::pair<double, std::optional<double>>> all = {{0.5, summary.p50},
                                                                     {0.9, summary.p90},
                                                                     {0.95, summary.p95},
                                                                     {0.99, summary.p99},
                                                                     {0.999, summary.p999}};
  for (const auto& [p, found] : all) {
    const double quantile = boost::math::quantile(known, p);
    const double error = std::sqrt(p * (1 - p) / kCount) / boost::math::pdf(known, quantile);
    EXPECT_NEAR(*found, quantile, 5 * error) << p;
  }
  EXPECT_NEAR(*summary.mean, boost::math::mean(known),
              5 * boost::math::standard_deviation(known) / std::sqrt(kCount));
}

TEST(Statistics, FindsTheQuantilesOfKnownDistributions) {
  ExpectKnownQuantiles(boost::math::uniform(2, 5),
                       boost::random::uniform_real_distribution<>(2, 5));
  ExpectKnownQuantiles(boost::math::exponential(3), boost::random::exponential_distribution<>(3));
  ExpectKnownQuantiles(boost::math::normal(10, 2), boost::random::normal_distribution<>(10, 2));
}

TEST(RatioInterval, HoldsTheTrueRatioAboutAsOftenAsItSays) {
  Random random(11);
  for (const std::size_t count : {20u, 100u, 1000u}) {
    constexpr int kTrials = 400;
    int held = 0;
    for (int trial = 0; trial < kTrials; ++trial) {
      const auto a = Latencies(random, count);
      const auto b = Latencies(random, count, 1.5);
      const auto interval = RatioInterval(b, a);
      ASSERT_TRUE(interval.has_value());
      if (interval->low <= 1.5 && 1.5 <= interval->high) ++held;
    }
    EXPECT_GE(held, kTrials * 0.92) << count;
    EXPECT_LE(held, kTrials * 0.985) << count << ": wider than it needs to be";
  }
}

TEST(RatioInterval, AgreesWithDrawingSamplesAgain) {
  Random random(13);
  const auto a = Latencies(random, 50);
  const auto b = Latencies(random, 80);
  boost::random::uniform_real_distribution<> uniform(0, 1);
  auto again = [&](const std::vector<double>& samples) {
    std::vector<double> drawn(samples.size());
    std::ranges::generate(drawn, [&] {
      return samples[static_cast<std::size_t>(uniform(random) *
                                              static_cast<double>(samples.size()))];
    });
    return Percentile(std::move(drawn), 50);
  };
  std::vector<double> ratios(10'000);
  std::ranges::generate(ratios, [&] { return again(b) / again(a); });
  const auto interval = RatioInterval(b, a);
  EXPECT_NEAR(interval->low, Percentile(ratios, 2.5), 0.02);
  EXPECT_NEAR(interval->high, Percentile(ratios, 97.5), 0.02);
}

TEST(RatioInterval, IsAlwaysTheSameForTheSameSamples) {
  Random random(17);
  const auto a = Latencies(random, 30);
  const auto b = Latencies(random, 30);
  EXPECT_EQ(RatioInterval(a, b)->low, RatioInterval(a, b)->low);
  auto reversed = a;
  std::ranges::reverse(reversed);
  EXPECT_EQ(RatioInterval(a, b)->high, RatioInterval(reversed, b)->high);
}

TEST(RatioInterval, NeedsEnoughSamplesForItsPercentile) {
  const std::vector<double> five(5, 1), six(6, 1), few(298, 1), enough(299, 1);
  EXPECT_FALSE(RatioInterval(five, six).has_value());
  EXPECT_FALSE(RatioInterval(six, {}).has_value());
  EXPECT_TRUE(RatioInterval(six, six).has_value());
  EXPECT_FALSE(RatioInterval(enough, few, 99, 99).has_value());
  EXPECT_TRUE(RatioInterval(enough, enough, 99, 99).has_value());
  EXPECT_TRUE(RatioInterval(enough, six, 99, 50).has_value());
}

TEST(RatioInterval, IsNoneByNothing) {
  EXPECT_FALSE(RatioInterval(std::vector<double>(9, 1), std::vector<double>(9, 0)).has_value());
}

Verdict Compared(Random& random, std::size_t count, double scale, Unit unit = Unit::kSeconds) {
  const auto a = Latencies(random, count);
  const auto b = Latencies(random, count, scale);
  return Judge(unit, RatioInterval(b, a));
}

TEST(Judge, CallsTheSameDistributionNoise) {
  Random random(19);
  int noise = 0;
  for (int trial = 0; trial < 400; ++trial) {
    if (Compared(random, 100, 1) == Verdict::kNoise) ++noise;
  }
  EXPECT_GE(noise, 368);
}

TEST(Judge, FindsAFifthMore) {
  Random random(23);
  int slower = 0, faster = 0;
  for (int trial = 0; trial < 100; ++trial) {
    if (Compared(random, 200, 1.2) == Verdict::kSlower) ++slower;
    if (Compared(random, 200, 1 / 1.2) == Verdict::kFaster) ++faster;
  }
  EXPECT_GE(slower, 95);
  EXPECT_GE(faster, 95);
}

TEST(Judge, SpeaksTheLanguageOfTheUnit) {
  const Interval more{1.1, 1.2}, less{0.8, 0.9}, either{0.9, 1.1};
  EXPECT_EQ(Judge(Unit::kSeconds, more), Verdict::kSlower);
  EXPECT_EQ(Judge(Unit::kSeconds, less), Verdict::kFaster);
  EXPECT_EQ(Judge(Unit::kBytes, more), Verdict::kLarger);
  EXPECT_EQ(Judge(Unit::kBytes, less), Verdict::kSmaller);
  EXPECT_EQ(Judge(Unit::kPerSecond, more), Verdict::kFaster);
  EXPECT_EQ(Judge(Unit::kPerSecond, less), Verdict::kSlower);
  EXPECT_EQ(Judge(Unit::kSeconds, either), Verdict::kNoise);
  EXPECT_EQ(Judge(Unit::kSeconds, std::nullopt), Verdict::kTooFew);
}

TEST(Latencies, HaveTheMedianThatTheTestsAssume) {
  Random random(29);
  EXPECT_NEAR(Percentile(Latencies(random, 100'000), 50), kLatencyMedian, 0.02);
}

}  // namespace
}  // namespace hatchery::bench
