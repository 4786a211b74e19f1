// How numbers of a report read, in the table and on the page alike. Pure; any thread; any number.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/model.h"
#include "bench/outcome.h"

namespace hatchery::bench {

// "1.24 ms", "17.3 MiB", "8123/s".
std::string Text(Unit unit, double value);
// "-" without a value.
std::string Text(Unit unit, const std::optional<double>& value);
// Four digits at most below 10,000, none after the point from 100 on: "1.24", "12.4", "8123".
std::string Text(double number);
std::string Text(const Interval& interval);  // "1.980 to 2.20"
// A number of things: "8", "10000", "0.5".
std::string CountText(double count);

// "p50", "p99.9", "min": also their names in JSON.
std::string_view Name(Statistic statistic);

// The figure's number as one reads it, what it is if not a median before it: "p99 3.10 ms". The
// maximum that stands in for a percentile is called so. "not measured" without samples.
std::string ValueText(const Section& section, const Number& number,
                      const std::optional<double>& value);
// "384x", or "7.9%" where at most a share is allowed. "-" without a ratio.
std::string RatioText(const Figure& figure, const std::optional<double>& ratio);
// "1.980 to 2.20", or "7.4% to 8.2%" of such a share.
std::string IntervalText(const Figure& figure, const Interval& interval);
// ">= 300x", "<= 8%", "<= 2 GiB"; empty without a target.
std::string TargetText(const Section& section, const Figure& figure);
// "ok", "MISSED by 1.3x", "MISSED: not measured"; empty without a target.
std::string ResultText(const Outcome& outcome);

// Of the host and what ran on it, in the order in which to read them.
std::vector<std::pair<std::string, std::string>> Fields(const Environment& environment);

// At most `width` characters (not bytes), the last an ellipsis if there were more.
std::string Shorten(std::string_view text, std::size_t width);

}  // namespace hatchery::bench
