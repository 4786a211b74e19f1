// Scales of plots: where a value goes, and which values get a tick. Pure.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/model.h"

namespace hatchery::bench {

struct Tick {
  double at = 0;           // 0 is the axis's beginning, 1 its end
  std::string label = {};  // empty: only a line
};

struct Axis {
  std::vector<Tick> ticks;                // from 0 to 1, labels far enough apart to be read
  std::function<double(double)> place{};  // of a value: 0 to 1 for those that the axis was made for
};

// A logarithmic axis that holds all of `values`; those that are not above zero are at its
// beginning.
Axis LogAxis(Unit unit, const std::vector<double>& values);

// From zero (or below, if values are) to the largest of `values`.
Axis LinearAxis(Unit unit, const std::vector<double>& values);

// Of numbers of things. Logarithmic, with a tick at each, if they are spread like 1, 2, 4, 8;
// linear if they are spread like 10, 20, 30.
Axis CountAxis(const std::vector<double>& values);

// Shares of samples, from 0, spread as HdrHistogram spreads them: by how few samples lie beyond, so
// that 90%, 99% and 99.9% are equally far apart. Ends where the largest of `count` samples is.
Axis PercentileAxis(std::size_t count);

// Where the sample of that rank (from 1) of `count` is on it: the share of samples up to it. The
// largest, whose share of 1 would be at infinity, is half a sample before.
double ShareOf(std::size_t rank, std::size_t count);

}  // namespace hatchery::bench
