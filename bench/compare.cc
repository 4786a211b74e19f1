#include "bench/compare.h"

#include <algorithm>
#include <set>

#include "bench/outcome.h"
#include "bench/text.h"
#include "cmd/hatchery/table.h"

namespace hatchery::bench {

namespace {

constexpr std::size_t kNameWidth = 34;

const Section* FindSection(const Report& report, std::string_view benchmark) {
  const auto found = std::ranges::find(report.sections, benchmark, &Section::benchmark);
  return found == report.sections.end() ? nullptr : &*found;
}

const Series* FindCounterpart(const Report& other, const Section& section, const Series& series) {
  const Section* there = FindSection(other, section.benchmark);
  const Series* found = there == nullptr ? nullptr : FindSeries(*there, series.key);
  return found != nullptr && found->unit == series.unit ? found : nullptr;
}

Change Between(const Section& section, const Series& a, const Series& b) {
  Change change{.benchmark = section.benchmark,
                .name = a.name,
                .unit = a.unit,
                .a = Summarize(a),
                .b = Summarize(b)};
  if (change.a.p50 && change.b.p50 && *change.a.p50 != 0) {
    change.ratio = *change.b.p50 / *change.a.p50;
  }
  change.interval = RatioInterval(b.samples, a.samples);
  change.verdict = Judge(a.unit, change.interval);
  return change;
}

// Series of `report` that `other` does not have.
std::vector<std::string> OnlyIn(const Report& report, const Report& other) {
  std::vector<std::string> only;
  for (const Section& section : report.sections) {
    for (const Series& series : section.series) {
      if (FindCounterpart(other, section, series) == nullptr) {
        only.push_back(section.benchmark + ": " + series.name);
      }
    }
  }
  return only;
}

class Differences {
 public:
  void Look(const std::string& what, const std::string& a, const std::string& b) {
    if (a == b) return;
    auto shown = [](const std::string& text) { return text.empty() ? "nothing" : text; };
    found_.push_back(what + ": " + shown(a) + " in A, " + shown(b) + " in B");
  }
  std::vector<std::string> Take() { return std::move(found_); }

 private:
  std::vector<std::string> found_;
};

void LookAtEnvironments(const Environment& a, const Environment& b, Differences& differences) {
  differences.Look("CPU", a.cpu, b.cpu);
  differences.Look("cores", std::to_string(a.cores), std::to_string(b.cores));
  differences.Look("memory in MiB", std::to_string(a.memory_mib), std::to_string(b.memory_mib));
  differences.Look("kernel", a.kernel, b.kernel);
  differences.Look("virtualization", a.virtualization, b.virtualization);
  differences.Look("accelerator", a.accelerator, b.accelerator);
  differences.Look("VMM", a.vmm, b.vmm);
  differences.Look("template", a.template_digest, b.template_digest);
}

void LookAtParameters(const Report& a, const Report& b, Differences& differences) {
  for (const Section& section : a.sections) {
    const Section* there = FindSection(b, section.benchmark);
    if (there == nullptr) continue;
    std::set<std::string> names;
    for (const auto& [name, value] : section.parameters) names.insert(name);
    for (const auto& [name, value] : there->parameters) names.insert(name);
    auto value_of = [](const Section& one, const std::string& name) {
      const auto found = one.parameters.find(name);
      return found == one.parameters.end() ? std::string() : found->second;
    };
    for (const auto& name : names) {
      differences.Look(section.benchmark + "'s " + name, value_of(section, name),
                       value_of(*there, name));
    }
  }
}

std::string List(const std::string& title, const std::vector<std::string>& lines) {
  if (lines.empty()) return "";
  std::string text = "\n" + title + ":\n";
  for (const auto& line : lines) text += "- " + cli::Printable(line) + "\n";
  return text;
}

}  // namespace

std::string_view Name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kTooFew: return "too few samples";
    case Verdict::kNoise: return "noise";
    case Verdict::kFaster: return "faster";
    case Verdict::kSlower: return "slower";
    case Verdict::kSmaller: return "smaller";
    case Verdict::kLarger: return "larger";
  }
  return "unknown";
}

Comparison Compare(const Report& a, const Report& b) {
  Comparison comparison;
  for (const Section& section : a.sections) {
    for (const Series& series : section.series) {
      const Series* there = FindCounterpart(b, section, series);
      if (there != nullptr) comparison.changes.push_back(Between(section, series, *there));
    }
  }
  comparison.only_a = OnlyIn(a, b);
  comparison.only_b = OnlyIn(b, a);
  Differences differences;
  LookAtEnvironments(a.environment, b.environment, differences);
  LookAtParameters(a, b, differences);
  comparison.differences = differences.Take();
  return comparison;
}

std::string RenderComparison(const Comparison& comparison) {
  using cli::Align;
  std::string text, benchmark;
  for (std::size_t i = 0; i < comparison.changes.size();) {
    benchmark = comparison.changes[i].benchmark;
    cli::Table table({{"SERIES"},
                      {"P50 A", Align::kRight},
                      {"P50 B", Align::kRight},
                      {"B BY A", Align::kRight},
                      {"95% INTERVAL", Align::kRight},
                      {"VERDICT"},
                      {"P99 A", Align::kRight},
                      {"P99 B", Align::kRight}});
    for (; i < comparison.changes.size() && comparison.changes[i].benchmark == benchmark; ++i) {
      const Change& change = comparison.changes[i];
      table.Add({Shorten(change.name, kNameWidth), Text(change.unit, change.a.p50),
                 Text(change.unit, change.b.p50), change.ratio ? Text(*change.ratio) + "x" : "",
                 change.interval ? Text(*change.interval) : "", std::string(Name(change.verdict)),
                 Text(change.unit, change.a.p99), Text(change.unit, change.b.p99)});
    }
    text += "== " + cli::Printable(benchmark) + "\n\n" + table.Render() + "\n";
  }
  if (comparison.changes.empty()) text += "The two reports have no series in common.\n\n";
  text +=
      "The interval is of the ratio of the medians; with 1 in it, the difference is noise. Where "
      "nothing\nchanged, one series in 20 is still called different: look again before believing "
      "a small one.\n";
  text += List("Not the same on both sides, so differences may come of it", comparison.differences);
  text += List("Only in A", comparison.only_a);
  text += List("Only in B", comparison.only_b);
  return text;
}

}  // namespace hatchery::bench
