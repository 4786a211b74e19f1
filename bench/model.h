// What `hatchery bench` measured: every raw sample, and the figures that come of them. Plain data;
// nothing is measured, computed or printed here.
//
// One report holds the sections of one run of the program on one host. A section is one benchmark.
// Its series hold the samples; everything else (percentiles, ratios, whether a target was met,
// plots) is derived from them and from nothing else, so that whoever has the file can check it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace hatchery::bench {

// kSeconds: a latency or a CPU time. kPerSecond: a rate.
enum class Unit { kSeconds, kBytes, kPerSecond };

// The attempts at one thing, in the order in which they were made. An attempt that failed has no
// sample: it is counted by its reason, never repeated and never dropped.
struct Series {
  std::string key;   // "acquire", "acquire.first_exec": stable, for programs; unique in its section
  std::string name;  // for people
  Unit unit = Unit::kSeconds;
  std::vector<double> samples = {};
  std::map<std::string, std::uint64_t> failures = {};  // by reason
  std::uint64_t warm_up = 0;                           // attempts before these, not counted
};

// Something that grows with something else: memory with the number of VMs, latency with
// concurrency. Curves of one section with the same `plot` are drawn into one plot.
struct Curve {
  std::string key;
  std::string name;
  std::string plot;            // the plot's title
  std::string x;               // "warm VMs", "clients"
  std::string y;               // "private memory per VM"
  Unit unit = Unit::kSeconds;  // of y
  struct Point {
    double x = 0;
    double y = 0;
  };
  std::vector<Point> points = {};
};

// One number out of a series.
enum class Statistic { kMin, kP50, kP90, kP95, kP99, kP999, kMax, kMean, kSum };
struct Number {
  std::string series;  // its key, in the same section
  Statistic statistic = Statistic::kP50;
};

// What is promised of a ratio, or of the value itself where a figure is against nothing.
struct Target {
  enum class Is { kAtLeast, kAtMost };
  Is is = Is::kAtMost;
  double limit = 0;
};

// One row of the table: a number, beside what it is measured against in the same run.
struct Figure {
  std::string key;
  std::string name;
  Number value;
  std::optional<Number> against = {};
  // The ratio is value by against; with `inverse`, against by value ("how many times faster").
  bool inverse = false;
  std::optional<Target> target = {};  // none: only reported
};

struct Section {
  std::string benchmark;                          // "cold-start"
  std::map<std::string, std::string> parameters;  // as they were used, defaults included
  std::vector<std::string> notes;                 // how it was measured, for people
  std::vector<Series> series;
  std::vector<Curve> curves;
  std::vector<Figure> figures;
};

// Without it the numbers mean nothing. What could not be read is "unknown".
struct Environment {
  std::string time;      // of the start, RFC 3339 in UTC
  std::string hatchery;  // version
  std::string commit;    // of the build, with "-dirty" if it had changes; "unknown" outside git
  std::string cpu;
  unsigned cores = 0;
  std::uint64_t memory_mib = 0;
  std::string kernel;
  std::string virtualization;  // of this host itself: "none", or what it runs in
  std::string accelerator;     // "tcg", "kvm", "kvm, nested"; "fake" without VMs
  std::string vmm;             // with its version
  std::string template_digest;
  std::string load;  // 1, 5 and 15 minutes, at the start
};

struct Report {
  Environment environment;
  std::string command;  // the command line that made it
  std::vector<Section> sections;
};

}  // namespace hatchery::bench
