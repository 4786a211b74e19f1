#include "bench/statistics.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/statistics/univariate_statistics.hpp>
#include <boost/random/beta_distribution.hpp>
#include <boost/random/mersenne_twister.hpp>
#include <cmath>
#include <numeric>

namespace hatchery::bench {

namespace {

constexpr double kConfidence = 0.95;
constexpr int kResamples = 4'000;
constexpr std::uint64_t kSeed = 20'260'101;

double AtPercentile(const std::vector<double>& sorted, double percent) {
  return sorted[RankOf(percent, sorted.size()) - 1];
}

std::vector<double> Sorted(std::vector<double> samples) {
  std::ranges::sort(samples);
  return samples;
}

// How sure it is that the percentile of what the samples came from lies between their smallest and
// their largest: neither all below it nor all above.
bool BearsInterval(std::size_t count, double percent) {
  if (count == 0) return false;
  const boost::math::binomial below(static_cast<double>(count), percent / 100);
  const double outside = pdf(below, 0) + pdf(below, static_cast<double>(count));
  return outside <= 1 - kConfidence;
}

// Percentiles of a list drawn again and again.
class Resampled {
 public:
  Resampled(const std::vector<double>& sorted, double percent)
      : sorted_(sorted), place_(Shape(sorted, percent)) {}

  double operator()(boost::random::mt19937_64& random) {
    const double at = place_(random) * static_cast<double>(sorted_.size());
    return sorted_[std::min(static_cast<std::size_t>(at), sorted_.size() - 1)];
  }

 private:
  static boost::random::beta_distribution<> Shape(const std::vector<double>& sorted,
                                                  double percent) {
    const std::size_t rank = RankOf(percent, sorted.size());
    return boost::random::beta_distribution<>(static_cast<double>(rank),
                                              static_cast<double>(sorted.size() + 1 - rank));
  }

  const std::vector<double>& sorted_;
  boost::random::beta_distribution<> place_;
};

}  // namespace

std::size_t RankOf(double percent, std::size_t count) {
  // Rounded first: 99.9 percent of 1,000 is 999, not a hair more.
  const double exact = percent * static_cast<double>(count) / 100;
  const auto rank = static_cast<std::size_t>(std::ceil(exact - 1e-9 * exact));
  return std::clamp<std::size_t>(rank, 1, count);
}

double Percentile(std::vector<double> samples, double percent) {
  if (samples.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(RankOf(percent, samples.size()) - 1);
  std::ranges::nth_element(samples, samples.begin() + at);
  return samples[static_cast<std::size_t>(at)];
}

bool Allows(std::size_t count, double percent) {
  return count > 0 && (percent <= 50 || RankOf(percent, count) < count);
}

Summary Summarize(const Series& series) {
  Summary summary{.count = series.samples.size()};
  for (const auto& [reason, times] : series.failures) summary.failed += times;
  const auto attempts = static_cast<double>(summary.count) + static_cast<double>(summary.failed);
  if (attempts > 0) summary.success_rate = static_cast<double>(summary.count) / attempts;
  if (series.samples.empty()) return summary;

  const auto sorted = Sorted(series.samples);
  auto percentile = [&](double percent) -> std::optional<double> {
    if (!Allows(sorted.size(), percent)) return std::nullopt;
    return AtPercentile(sorted, percent);
  };
  summary.min = sorted.front();
  summary.p50 = percentile(50);
  summary.p90 = percentile(90);
  summary.p95 = percentile(95);
  summary.p99 = percentile(99);
  summary.p999 = percentile(99.9);
  summary.max = sorted.back();
  summary.mean = boost::math::statistics::mean(sorted);
  return summary;
}

std::optional<double> PercentOf(Statistic statistic) {
  switch (statistic) {
    case Statistic::kP50: return 50;
    case Statistic::kP90: return 90;
    case Statistic::kP95: return 95;
    case Statistic::kP99: return 99;
    case Statistic::kP999: return 99.9;
    case Statistic::kMin:
    case Statistic::kMax:
    case Statistic::kMean:
    case Statistic::kSum: return std::nullopt;
  }
  return std::nullopt;
}

std::optional<double> Compute(const std::vector<double>& samples, Statistic statistic) {
  if (samples.empty()) return std::nullopt;
  if (const auto percent = PercentOf(statistic)) return Percentile(samples, *percent);
  switch (statistic) {
    case Statistic::kMin: return std::ranges::min(samples);
    case Statistic::kMax: return std::ranges::max(samples);
    case Statistic::kMean: return boost::math::statistics::mean(samples);
    case Statistic::kSum: return std::accumulate(samples.begin(), samples.end(), 0.0);
    case Statistic::kP50:
    case Statistic::kP90:
    case Statistic::kP95:
    case Statistic::kP99:
    case Statistic::kP999: break;  // percentiles: done above
  }
  return std::nullopt;
}

std::optional<Interval> RatioInterval(const std::vector<double>& above,
                                      const std::vector<double>& below, double above_percent,
                                      double below_percent) {
  if (!BearsInterval(above.size(), above_percent) || !BearsInterval(below.size(), below_percent)) {
    return std::nullopt;
  }
  const auto sorted_above = Sorted(above);
  const auto sorted_below = Sorted(below);
  if (sorted_below.front() <= 0) return std::nullopt;

  boost::random::mt19937_64 random(kSeed);
  Resampled draw_above(sorted_above, above_percent);
  Resampled draw_below(sorted_below, below_percent);
  std::vector<double> ratios(kResamples);
  for (double& ratio : ratios) ratio = draw_above(random) / draw_below(random);
  std::ranges::sort(ratios);
  constexpr double kTail = 100 * (1 - kConfidence) / 2;
  return Interval{AtPercentile(ratios, kTail), AtPercentile(ratios, 100 - kTail)};
}

Verdict Judge(Unit unit, const std::optional<Interval>& interval) {
  if (!interval) return Verdict::kTooFew;
  if (interval->low <= 1 && interval->high >= 1) return Verdict::kNoise;
  const bool more = interval->low > 1;
  switch (unit) {
    case Unit::kSeconds: return more ? Verdict::kSlower : Verdict::kFaster;
    case Unit::kBytes: return more ? Verdict::kLarger : Verdict::kSmaller;
    case Unit::kPerSecond: return more ? Verdict::kFaster : Verdict::kSlower;
  }
  return Verdict::kNoise;
}

}  // namespace hatchery::bench
