// Two reports side by side: for each series of both, how its median went from A to B, with a 95%
// confidence interval, and whether that says anything. Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/model.h"
#include "bench/statistics.h"

namespace hatchery::bench {

struct Change {
  std::string benchmark;
  std::string name;
  Unit unit = Unit::kSeconds;
  Summary a, b;
  std::optional<double> ratio = {};       // of the medians, B by A
  std::optional<Interval> interval = {};  // of that ratio
  Verdict verdict = Verdict::kTooFew;
};

struct Comparison {
  std::vector<Change> changes;
  std::vector<std::string> only_a, only_b;  // series, as "cold-start: acquire"
  // "CPU: X in A, Y in B": what differs of host, accelerator, VMM, template and, per benchmark,
  // parameters. Where there is any, a difference of the series may come of it.
  std::vector<std::string> differences;
};

// Series belong together that have the same benchmark and key. Those of another unit do not.
Comparison Compare(const Report& a, const Report& b);

std::string RenderComparison(const Comparison& comparison);

// "noise", "faster", "too few samples".
std::string_view Name(Verdict verdict);

}  // namespace hatchery::bench
