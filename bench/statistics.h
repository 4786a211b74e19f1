// What a list of samples comes to, and whether two lists differ. Pure; any thread. Samples are
// finite numbers; in any order.
//
// Percentiles are nearest-rank: the p-th is the smallest sample that at least p percent of all
// samples do not exceed, so always one that was measured, never a value in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "bench/model.h"

namespace hatchery::bench {

// Of no samples 0. `percent` is above 0 and at most 100.
double Percentile(std::vector<double> samples, double percent);

// The rank, from 1, of that sample among `count`, which is above 0.
std::size_t RankOf(double percent, std::size_t count);

// Does a list of `count` samples say something of its `percent`-th percentile? Only if at least one
// sample lies beyond it; without one it is the maximum under another name. So p90 needs 10 samples,
// p95 20, p99 100, p99.9 1,000. The median is always told.
bool Allows(std::size_t count, double percent);

// Everything about a series that is worth a column. Percentiles that its samples do not allow are
// empty; without samples, all are.
struct Summary {
  std::size_t count = 0;                    // of samples: attempts that succeeded
  std::uint64_t failed = 0;                 // attempts that did not
  std::optional<double> success_rate = {};  // of all attempts; empty if there was none
  std::optional<double> min = {}, p50 = {}, p90 = {}, p95 = {}, p99 = {}, p999 = {}, max = {},
                        mean = {};
};
Summary Summarize(const Series& series);

// One statistic of `samples`, empty without any. A percentile that they do not allow is their
// maximum: for the upper tail the careful side to err on.
std::optional<double> Compute(const std::vector<double>& samples, Statistic statistic);

// The percent of the percentiles among the statistics: 99.9 of kP999.
std::optional<double> PercentOf(Statistic statistic);

struct Interval {
  double low = 0;
  double high = 0;
};

// The 95% confidence interval of a percentile of `above` divided by one of `below`: the percentile
// bootstrap, with a fixed seed, so that the same samples always give the same interval.
//
// Both lists are drawn again 4,000 times. A percentile of a list that is drawn from n samples with
// replacement is the sample at rank floor(n * u), where u, the k-th smallest of n uniform numbers,
// has the beta distribution (k, n + 1 - k). So u is drawn instead of n samples: the same
// distribution at a cost that does not grow with n.
//
// Nothing where the samples bear no such interval, that is where even from their smallest to their
// largest is not sure to hold the percentile with 95%: medians need 6 samples, p99 needs 299. Also
// nothing if `below` can be 0.
//
// It knows only what the samples know. Two runs on a host whose load has changed in between differ,
// and are called so.
std::optional<Interval> RatioInterval(const std::vector<double>& above,
                                      const std::vector<double>& below, double above_percent = 50,
                                      double below_percent = 50);

// What has become of a figure from A to B. Of rates, more is faster.
enum class Verdict {
  kTooFew,  // samples for an interval
  kNoise,   // the interval of the ratio has 1 in it
  kFaster,
  kSlower,
  kSmaller,
  kLarger,
};
// `interval` is of B by A.
Verdict Judge(Unit unit, const std::optional<Interval>& interval);

}  // namespace hatchery::bench
