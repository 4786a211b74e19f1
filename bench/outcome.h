// What a figure comes to: its numbers, and whether it keeps what is promised. Decided here and
// nowhere else. Pure; any thread.
#pragma once

#include <optional>
#include <string_view>

#include "bench/model.h"
#include "bench/statistics.h"

namespace hatchery::bench {

// What could not be computed, for want of samples or because it would be a division by zero, is
// empty.
struct Outcome {
  std::optional<double> value = {};
  std::optional<double> against = {};
  std::optional<double> ratio = {};       // the way round that the figure says
  std::optional<Interval> interval = {};  // of the ratio; only of percentiles, see statistics.h
  // Nothing without a target. A figure without samples meets none.
  std::optional<bool> met = {};
  // How far off a missed one is: 1.5 is half as much again as allowed, or two thirds of what was
  // asked for.
  std::optional<double> missed_by = {};
};
Outcome Evaluate(const Section& section, const Figure& figure);

struct Tally {
  int targets = 0;
  int met = 0;
  bool AllMet() const { return met == targets; }
};
Tally CountTargets(const Report& report);

// Null if there is none.
const Series* FindSeries(const Section& section, std::string_view key);

}  // namespace hatchery::bench
