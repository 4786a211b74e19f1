#include "bench/table.h"

#include <algorithm>
#include <map>
#include <vector>

#include "bench/outcome.h"
#include "bench/statistics.h"
#include "bench/text.h"
#include "cmd/hatchery/table.h"

namespace hatchery::bench {

namespace {

using cli::Align;
using cli::Printable;

// What leaves the other columns the room they need.
constexpr std::size_t kNameWidth = 34;
constexpr std::size_t kBaselineWidth = 24;
constexpr std::size_t kCurveWidth = 26;
constexpr std::size_t kCurvesBeside = 4;

// A line of words, broken where it would get too wide.
std::string Wrapped(const std::string& first, const std::string& text) {
  std::string out = first, line = first;
  const std::string indent(first.size(), ' ');
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (line.size() + word.size() + 1 > kTableWidth && line.size() > indent.size()) {
      out += "\n" + indent;
      line = indent;
    }
    const bool begins = line.size() == indent.size();
    out += (begins ? "" : " ") + word;
    line += (begins ? "" : " ") + word;
    at = end + 1;
  }
  return out + "\n";
}

std::string SeriesTable(const Section& section) {
  cli::Table table({{"SERIES"},
                    {"N", Align::kRight},
                    {"FAILED", Align::kRight},
                    {"MIN", Align::kRight},
                    {"P50", Align::kRight},
                    {"P90", Align::kRight},
                    {"P95", Align::kRight},
                    {"P99", Align::kRight},
                    {"P99.9", Align::kRight},
                    {"MAX", Align::kRight}});
  std::string failures;
  for (const Series& series : section.series) {
    const Summary s = Summarize(series);
    table.Add({Shorten(series.name, kNameWidth), std::to_string(s.count), std::to_string(s.failed),
               Text(series.unit, s.min), Text(series.unit, s.p50), Text(series.unit, s.p90),
               Text(series.unit, s.p95), Text(series.unit, s.p99), Text(series.unit, s.p999),
               Text(series.unit, s.max)});
    for (const auto& [reason, times] : series.failures) {
      failures += Wrapped("failed: ",
                          Printable(series.name + ", " + std::to_string(times) + "x: " + reason));
    }
  }
  return table.Render() + failures;
}

// The curves of one plot side by side, so many that they fit.
std::string CurvesTable(const std::vector<const Curve*>& curves) {
  std::map<double, std::vector<std::string>> rows;
  std::vector<cli::Column> columns = {{Printable(curves[0]->x), Align::kRight}};
  for (std::size_t i = 0; i < curves.size(); ++i) {
    columns.push_back({Printable(Shorten(curves[i]->name, kCurveWidth)), Align::kRight});
    for (const auto& point : curves[i]->points) {
      auto& row = rows[point.x];
      row.resize(curves.size());
      row[i] = Text(curves[i]->unit, point.y);
    }
  }
  cli::Table table(std::move(columns));
  for (auto& [x, cells] : rows) {
    cells.insert(cells.begin(), CountText(x));
    table.Add(cells);
  }
  return table.Render();
}

std::string PlotsTables(const Section& section) {
  std::vector<std::vector<const Curve*>> groups;
  for (const Curve& curve : section.curves) {
    if (groups.empty() || groups.back()[0]->plot != curve.plot ||
        groups.back().size() == kCurvesBeside) {
      groups.emplace_back();
    }
    groups.back().push_back(&curve);
  }
  std::string text;
  for (const auto& group : groups) {
    text += "\n" + Printable(group[0]->plot) + " (" + Printable(group[0]->y) + "):\n" +
            CurvesTable(group);
  }
  return text;
}

std::string FiguresTable(const Section& section) {
  cli::Table table({{"FIGURE"},
                    {"VALUE", Align::kRight},
                    {"AGAINST"},
                    {"RATIO", Align::kRight},
                    {"TARGET", Align::kRight},
                    {""}});
  for (const Figure& figure : section.figures) {
    const Outcome outcome = Evaluate(section, figure);
    std::string against;
    if (figure.against) {
      const Series* baseline = FindSeries(section, figure.against->series);
      against = (baseline == nullptr ? "" : Shorten(baseline->name, kBaselineWidth) + " ") +
                ValueText(section, *figure.against, outcome.against);
    }
    const std::string result = ResultText(outcome);
    table.Add({Shorten(figure.name, kNameWidth), ValueText(section, figure.value, outcome.value),
               against, RatioText(figure, outcome.ratio), TargetText(section, figure),
               result.empty() ? " " : result});
  }
  return table.Render();
}

std::string RenderSection(const Section& section) {
  std::string text = "\n== " + Printable(section.benchmark) + "\n";
  std::string parameters;
  for (const auto& [name, value] : section.parameters) {
    parameters += (parameters.empty() ? "" : " ") + name + "=" + value;
  }
  if (!parameters.empty()) text += Wrapped("", Printable(parameters));
  if (!section.series.empty()) text += "\n" + SeriesTable(section);
  text += PlotsTables(section);
  if (!section.figures.empty()) text += "\n" + FiguresTable(section);
  if (!section.notes.empty()) text += "\n";
  for (const auto& note : section.notes) text += Wrapped("- ", Printable(note));
  return text;
}

std::string Conclusion(const Report& report) {
  const Tally tally = CountTargets(report);
  if (tally.targets == 0) return "";
  std::string text =
      std::to_string(tally.met) + " of " + std::to_string(tally.targets) + " targets met";
  std::string missed;
  for (const Section& section : report.sections) {
    for (const Figure& figure : section.figures) {
      if (Evaluate(section, figure).met.value_or(true)) continue;
      missed += (missed.empty() ? "" : ", ") + section.benchmark + ": " + figure.name;
    }
  }
  return Wrapped("", Printable(text + (missed.empty() ? "" : "; missed: " + missed)));
}

}  // namespace

std::string RenderTable(const Report& report) {
  std::string text = cli::RenderFields(Fields(report.environment));
  if (!report.command.empty()) text += Wrapped("command: ", Printable(report.command));
  for (const Section& section : report.sections) text += RenderSection(section);
  const std::string conclusion = Conclusion(report);
  return conclusion.empty() ? text : text + "\n" + conclusion;
}

}  // namespace hatchery::bench
