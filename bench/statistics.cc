#include "bench/statistics.h"

#include <algorithm>
#include <cmath>

namespace hatchery::bench {

double Percentile(std::vector<double> samples, double percent) {
  if (samples.empty()) return 0;
  const auto count = static_cast<double>(samples.size());
  const auto rank = static_cast<std::size_t>(std::ceil(percent * count / 100));
  const auto index = std::clamp<std::size_t>(rank, 1, samples.size()) - 1;
  std::ranges::nth_element(samples, samples.begin() + static_cast<std::ptrdiff_t>(index));
  return samples[index];
}

Summary Summarize(const std::vector<double>& samples) {
  return {samples.size(), Percentile(samples, 50), Percentile(samples, 99),
          Percentile(samples, 100)};
}

}  // namespace hatchery::bench
