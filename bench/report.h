// The figures as rows of a table and as JSON; what counts as met is decided here and nowhere else.
// Pure: nothing is measured here.
//
// The JSON, as `hatchery-figures --json FILE` writes it and `--show FILE` reads it:
//
//   {"version": 1,
//    "environment": {"cpu": …, "cores": 2, "kernel": …, "accelerator": "tcg", "qemu": …,
//                    "load": "0.42 0.31 0.30", "memory_mib": 24105},     as it was at the start
//    "notes": ["…"],                                  how it was measured, for people
//    "figures": [{"key": "acquire",                   stable, for programs
//                 "name": "acquire, no resize",       for people
//                 "unit": "s" | "B",
//                 "value": {"count": 30, "p50": …, "p99": …, "max": …},
//                 "against": {"name": "cold boot", "value": {…}},         absent: nothing
//                 "ratio": …,                         absent without "against"
//                 "target": {"of": "value" | "ratio", "is": "at_least" | "at_most",
//                            "limit": …},             absent: only reported
//                 "met": true}]}                      absent without "target"
//
// Numbers are in the unit, unrounded. "ratio" is of the medians, the larger way round that the
// target speaks of: baseline by value for "at_least" (how many times faster), value by baseline
// otherwise.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hatchery::bench::old {

enum class Unit { kSeconds, kBytes };

// Of no samples: all zero.
struct Summary {
  std::size_t count = 0;
  double p50 = 0;
  double p99 = 0;
  double max = 0;
};
Summary Summarize(const std::vector<double>& samples);

struct Against {
  std::string name;
  Summary value;
};

struct Target {
  enum class Of { kValue, kRatio };
  enum class Is { kAtLeast, kAtMost };
  Of of = Of::kRatio;
  Is is = Is::kAtMost;
  double limit = 0;
};

struct Figure {
  std::string key;
  std::string name;
  Unit unit = Unit::kSeconds;
  Summary value;
  std::optional<Against> against = {};
  std::optional<Target> target = {};

  std::optional<double> Ratio() const;
  // Nothing where there is no target. A figure without samples meets none.
  std::optional<bool> Met() const;
};

struct Environment {
  std::string cpu;
  unsigned cores = 0;
  std::string kernel;
  std::string accelerator;
  std::string qemu;
  std::string load;
  std::uint64_t memory_mib = 0;
};

struct Report {
  Environment environment;
  std::vector<std::string> notes;
  std::vector<Figure> figures;

  bool AllMet() const;
};

std::string ToJsonText(const Report& report);
// kInvalidArgument names what is missing or wrong. Never crashes, whatever the text.
Result<Report> FromJsonText(std::string_view text);

// The table, the environment and the notes.
std::string Render(const Report& report);

}  // namespace hatchery::bench::old
