// What a list of samples comes to. Pure.
#pragma once

#include <cstddef>
#include <vector>

namespace hatchery::bench {

// Of no samples: all zero.
struct Summary {
  std::size_t count = 0;
  double p50 = 0;
  double p99 = 0;
  double max = 0;
  bool operator==(const Summary&) const = default;
};

// The nearest-rank percentile: the smallest sample that at least `percent` of all samples do not
// exceed, so always one that was measured. Of fewer than 100 samples, the 99th is the largest.
// `percent` is above 0 and at most 100; 0 of no samples.
double Percentile(std::vector<double> samples, double percent);

Summary Summarize(const std::vector<double>& samples);

}  // namespace hatchery::bench
