#include "bench/axis.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <set>

namespace hatchery::bench {

namespace {

// Labels closer than this would touch.
constexpr double kLabelGap = 0.055;
// Ticks that a linear axis has, about.
constexpr double kLinearTicks = 5;
// A logarithmic axis of less than this from end to end has ticks as a linear one.
constexpr double kNarrow = 4;

struct Scale {
  double size;
  const char* name;
};

// The unit in which a value reads best.
Scale ScaleOf(Unit unit, double value) {
  static constexpr std::array kSeconds = {Scale{1, " s"}, Scale{1e-3, " ms"}, Scale{1e-6, " us"},
                                          Scale{1e-9, " ns"}};
  static constexpr std::array kBytes = {Scale{0x1p40, " TiB"}, Scale{0x1p30, " GiB"},
                                        Scale{0x1p20, " MiB"}, Scale{0x1p10, " KiB"},
                                        Scale{1, " B"}};
  auto best = [value](const auto& scales) {
    for (const Scale& scale : scales) {
      if (std::abs(value) >= scale.size * (1 - 1e-9)) return scale;
    }
    return scales.back();
  };
  switch (unit) {
    case Unit::kSeconds: return best(kSeconds);
    case Unit::kBytes: return best(kBytes);
    case Unit::kPerSecond: return {1, "/s"};
  }
  return {1, ""};
}

std::string Label(double value, const Scale& scale) {
  std::array<char, 64> text{};
  // A sum of steps that should be zero is not quite.
  const double shown = std::abs(value) < scale.size * 1e-9 ? 0 : value / scale.size;
  std::snprintf(text.data(), text.size(), "%.6g%s", shown, scale.name);
  return text.data();
}

// 1, 2 or 5 by a power of ten, at least `least`.
double RoundStep(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double digit : {1.0, 2.0, 5.0}) {
    if (digit * power >= least * (1 - 1e-9)) return digit * power;
  }
  return 10 * power;
}

// Labels that would touch the one before them are dropped, their lines stay.
void Thin(Axis& axis) {
  double last = -1;
  for (Tick& tick : axis.ticks) {
    if (tick.label.empty()) continue;
    if (tick.at - last < kLabelGap) {
      tick.label.clear();
    } else {
      last = tick.at;
    }
  }
}

// The positive ones' smallest and largest; 1 and 10 if there is none.
std::pair<double, double> PositiveRange(const std::vector<double>& values) {
  double low = 0, high = 0;
  for (const double value : values) {
    if (!(value > 0)) continue;
    low = low == 0 ? value : std::min(low, value);
    high = std::max(high, value);
  }
  return low == 0 ? std::pair(1.0, 10.0) : std::pair(low, high);
}

std::function<double(double)> LogPlace(double low, double high) {
  return [low, span = std::log(high / low)](double value) {
    return value > low ? std::log(value / low) / span : 0;
  };
}

// Ticks at the multiples of a step, between bounds that are moved to multiples themselves.
struct Steps {
  double step, low, high;
  std::vector<double> All() const {
    std::vector<double> all;
    const auto count = static_cast<int>(std::lround((high - low) / step));
    for (int i = 0; i <= count; ++i) all.push_back(low + i * step);
    return all;
  }
};
Steps StepsOf(double low, double high, double scale) {
  const double step = RoundStep((high - low) / scale / kLinearTicks) * scale;
  return {step, std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step};
}

Axis Linear(double low, double high, const Scale& scale) {
  const Steps steps = StepsOf(low, high, scale.size);
  Axis axis;
  axis.place = [steps](double value) { return (value - steps.low) / (steps.high - steps.low); };
  for (const double value : steps.All()) {
    axis.ticks.push_back({axis.place(value), Label(value, scale)});
  }
  return axis;
}

Axis NarrowLog(Unit unit, double low, double high) {
  if (high / low < 1.02) {
    low *= 0.99;
    high *= 1.01;
  }
  Steps steps = StepsOf(low, high, ScaleOf(unit, high).size);
  if (steps.low <= 0) steps.low = steps.step / 2;
  Axis axis;
  axis.place = LogPlace(steps.low, steps.high);
  for (double value = std::ceil(steps.low / steps.step - 1e-9) * steps.step;
       value <= steps.high * (1 + 1e-9); value += steps.step) {
    axis.ticks.push_back({axis.place(value), Label(value, ScaleOf(unit, high))});
  }
  Thin(axis);
  return axis;
}

}  // namespace

Axis LogAxis(Unit unit, const std::vector<double>& values) {
  const auto [low, high] = PositiveRange(values);
  if (high / low < kNarrow) return NarrowLog(unit, low, high);

  // To the next 1, 2 or 5 on both sides.
  const double begin = 1 / RoundStep(1 / low);
  const double end = RoundStep(high);
  const double decades = std::log10(end / begin);
  Axis axis;
  axis.place = LogPlace(begin, end);
  for (auto power = static_cast<int>(std::floor(std::log10(begin) + 1e-9));
       std::pow(10, power) <= end * (1 + 1e-9); ++power) {
    for (int digit = 1; digit < 10; ++digit) {
      const double value = digit * std::pow(10, power);
      if (value < begin * (1 - 1e-9) || value > end * (1 + 1e-9)) continue;
      const bool labelled = digit == 1 || (decades <= 3.2 && (digit == 2 || digit == 5));
      if (!labelled && decades > 4) continue;
      axis.ticks.push_back({axis.place(value), labelled ? Label(value, ScaleOf(unit, value)) : ""});
    }
  }
  return axis;
}

Axis LinearAxis(Unit unit, const std::vector<double>& values) {
  double low = 0, high = 0;
  for (const double value : values) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low == high) high = low + 1;
  return Linear(low, high, ScaleOf(unit, std::max(high, -low)));
}

Axis CountAxis(const std::vector<double>& values) {
  const std::set<double> distinct(values.begin(), values.end());
  const double low = distinct.empty() ? 0 : *distinct.begin();
  double high = distinct.empty() ? 1 : *distinct.rbegin();
  const double middle =
      distinct.empty() ? 0 : *std::next(distinct.begin(), static_cast<long>(distinct.size() / 2));
  const bool geometric = low > 0 && distinct.size() > 2 &&
                         std::abs(std::log(middle / std::sqrt(low * high))) <
                             std::abs(std::log(middle / ((low + high) / 2)));
  const Scale plain{1, ""};
  if (!geometric) {
    const double begin = std::min(0.0, low);
    if (high <= begin) high = begin + 1;
    return Linear(begin, high, plain);
  }
  Axis axis;
  axis.place = LogPlace(low, high);
  for (const double value : distinct)
    axis.ticks.push_back({axis.place(value), Label(value, plain)});
  Thin(axis);
  return axis;
}

Axis PercentileAxis(std::size_t count) {
  const double span = std::log10(2 * std::max(5.0, static_cast<double>(count)));
  Axis axis;
  axis.place = [span](double share) { return -std::log10(1 - share) / span; };
  static constexpr std::array kShown = {
      std::pair{0.0, "0%"},      std::pair{0.5, "50%"},       std::pair{0.75, ""},
      std::pair{0.9, "90%"},     std::pair{0.95, "95%"},      std::pair{0.99, "99%"},
      std::pair{0.999, "99.9%"}, std::pair{0.9999, "99.99%"}, std::pair{0.99999, "99.999%"}};
  for (const auto& [share, label] : kShown) {
    const double at = axis.place(share);
    if (at <= 1) axis.ticks.push_back({at, label});
  }
  Thin(axis);
  return axis;
}

double ShareOf(std::size_t rank, std::size_t count) {
  const auto n = static_cast<double>(count);
  return rank < count ? static_cast<double>(rank) / n : 1 - 0.5 / n;
}

}  // namespace hatchery::bench
