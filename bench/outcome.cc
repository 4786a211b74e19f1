#include "bench/outcome.h"

#include <algorithm>

namespace hatchery::bench {

namespace {

std::optional<double> NumberOf(const Section& section, const Number& number) {
  const Series* series = FindSeries(section, number.series);
  return series == nullptr ? std::nullopt : Compute(series->samples, number.statistic);
}

std::optional<double> Divide(std::optional<double> above, std::optional<double> below) {
  if (!above || !below || *below == 0) return std::nullopt;
  return *above / *below;
}

std::optional<Interval> IntervalOf(const Section& section, const Number& above,
                                   const Number& below) {
  const Series* above_series = FindSeries(section, above.series);
  const Series* below_series = FindSeries(section, below.series);
  const auto above_percent = PercentOf(above.statistic);
  const auto below_percent = PercentOf(below.statistic);
  if (above_series == nullptr || below_series == nullptr || !above_percent || !below_percent) {
    return std::nullopt;
  }
  return RatioInterval(above_series->samples, below_series->samples, *above_percent,
                       *below_percent);
}

void Hold(const Target& target, std::optional<double> number, Outcome& outcome) {
  outcome.met = false;
  if (!number) return;
  switch (target.is) {
    case Target::Is::kAtMost:
      outcome.met = *number <= target.limit;
      if (!*outcome.met) outcome.missed_by = Divide(number, target.limit);
      return;
    case Target::Is::kAtLeast:
      outcome.met = *number >= target.limit;
      if (!*outcome.met) outcome.missed_by = Divide(target.limit, number);
      return;
  }
}

}  // namespace

const Series* FindSeries(const Section& section, std::string_view key) {
  const auto found = std::ranges::find(section.series, key, &Series::key);
  return found == section.series.end() ? nullptr : &*found;
}

Outcome Evaluate(const Section& section, const Figure& figure) {
  Outcome outcome;
  outcome.value = NumberOf(section, figure.value);
  if (figure.against) {
    outcome.against = NumberOf(section, *figure.against);
    const Number& above = figure.inverse ? *figure.against : figure.value;
    const Number& below = figure.inverse ? figure.value : *figure.against;
    outcome.ratio = figure.inverse ? Divide(outcome.against, outcome.value)
                                   : Divide(outcome.value, outcome.against);
    if (outcome.ratio) outcome.interval = IntervalOf(section, above, below);
  }
  if (figure.target) {
    Hold(*figure.target, figure.against ? outcome.ratio : outcome.value, outcome);
  }
  return outcome;
}

Tally CountTargets(const Report& report) {
  Tally tally;
  for (const Section& section : report.sections) {
    for (const Figure& figure : section.figures) {
      const auto met = Evaluate(section, figure).met;
      if (!met) continue;
      ++tally.targets;
      if (*met) ++tally.met;
    }
  }
  return tally;
}

}  // namespace hatchery::bench
