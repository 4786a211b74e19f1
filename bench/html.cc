#include "bench/html.h"

#include <algorithm>
#include <map>
#include <vector>

#include "bench/html_style.h"
#include "bench/outcome.h"
#include "bench/plot.h"
#include "bench/statistics.h"
#include "bench/text.h"

namespace hatchery::bench {

namespace {

// A cell of a table, already escaped.
struct Cell {
  std::string html;
  bool number = false;
};
Cell Words(std::string_view text) { return {Escape(text)}; }
Cell Figures(std::string_view text) { return {Escape(text == "-" ? "" : text), true}; }

class HtmlTable {
 public:
  explicit HtmlTable(const std::vector<Cell>& header) { Row(header, "th"); }
  void Add(const std::vector<Cell>& cells) { Row(cells, "td"); }
  std::string Render() const {
    return "<div class=\"scroll\"><table>\n" + html_ + "</table></div>\n";
  }

 private:
  void Row(const std::vector<Cell>& cells, const std::string& tag) {
    html_ += "<tr>";
    for (const Cell& cell : cells) {
      html_ += "<" + tag + (cell.number ? " class=\"n\">" : ">") + cell.html + "</" + tag + ">";
    }
    html_ += "</tr>\n";
  }

  std::string html_;
};

std::string Chip(bool good, const std::string& text) {
  return std::string("<span class=\"chip ") + (good ? "ok" : "missed") + "\">" + Escape(text) +
         "</span>";
}

std::string Heading(const char* text) {
  return std::string("<h3 class=\"table\">") + text + "</h3>\n";
}

// --- plots

// The samples by rank, with a dot at each percentile that the tables tell.
Line LatencyLine(const Series& series) {
  Line line{.name = series.name};
  auto sorted = series.samples;
  std::ranges::sort(sorted);
  const std::size_t count = sorted.size();
  line.points.push_back({0, sorted.front()});
  for (std::size_t rank = 1; rank <= count; ++rank) {
    line.points.push_back({ShareOf(rank, count), sorted[rank - 1]});
  }
  auto mark = [&](Statistic statistic, std::size_t rank) {
    line.points[rank].label = series.name + ", " + std::string(Name(statistic)) + ": " +
                              Text(series.unit, sorted[rank - 1]);
  };
  for (const auto statistic :
       {Statistic::kP50, Statistic::kP90, Statistic::kP99, Statistic::kP999}) {
    const double percent = *PercentOf(statistic);
    if (Allows(count, percent)) mark(statistic, RankOf(percent, count));
  }
  mark(Statistic::kMax, count);
  return line;
}

// Series of seconds, so many to a plot that they can be told apart, all on the same scales.
std::vector<Plot> LatencyPlots(const Section& section) {
  std::vector<const Series*> series;
  std::vector<double> all;
  std::size_t most = 0;
  for (const Series& each : section.series) {
    if (each.unit != Unit::kSeconds || each.samples.empty()) continue;
    series.push_back(&each);
    all.insert(all.end(), each.samples.begin(), each.samples.end());
    most = std::max(most, each.samples.size());
  }
  if (series.empty()) return {};
  const std::size_t count = (series.size() + kLinesPerPlot - 1) / kLinesPerPlot;
  const std::size_t each = (series.size() + count - 1) / count;
  std::vector<Plot> plots;
  for (std::size_t i = 0; i < series.size(); ++i) {
    if (i % each == 0) {
      const std::string part =
          count == 1 ? ""
                     : " (" + std::to_string(i / each + 1) + " of " + std::to_string(count) + ")";
      plots.push_back({.title = "Times by percentile" + part,
                       .x_title = "this share of the attempts took at most so long",
                       .y_title = "seconds, logarithmic",
                       .x = PercentileAxis(most),
                       .y = LogAxis(Unit::kSeconds, all),
                       .wide = true});
    }
    plots.back().lines.push_back(LatencyLine(*series[i]));
  }
  return plots;
}

Plot CurvesPlot(const std::vector<const Curve*>& curves) {
  std::vector<double> xs, ys;
  Plot plot{.title = curves[0]->plot, .x_title = curves[0]->x, .y_title = curves[0]->y};
  for (const Curve* curve : curves) {
    Line line{.name = curve->name};
    for (const auto& point : curve->points) {
      xs.push_back(point.x);
      ys.push_back(point.y);
      line.points.push_back({point.x, point.y,
                             curve->name + ", " + CountText(point.x) + " " + curve->x + ": " +
                                 Text(curve->unit, point.y)});
    }
    std::ranges::sort(line.points, {}, &Line::Point::x);
    plot.lines.push_back(std::move(line));
  }
  plot.x = CountAxis(xs);
  const Unit unit = curves[0]->unit;
  const double least = ys.empty() ? 0 : std::ranges::min(ys);
  const bool wide_range = least > 0 && std::ranges::max(ys) / least > 20;
  plot.y = wide_range ? LogAxis(unit, ys) : LinearAxis(unit, ys);
  if (wide_range) plot.y_title += ", logarithmic";
  return plot;
}

std::vector<Plot> CurvesPlots(const Section& section) {
  std::vector<std::vector<const Curve*>> groups;
  for (const Curve& curve : section.curves) {
    if (curve.points.empty()) continue;
    const auto same = std::ranges::find_if(groups, [&](const auto& group) {
      return group[0]->plot == curve.plot && group[0]->unit == curve.unit &&
             group.size() < kLinesPerPlot;
    });
    if (same != groups.end()) {
      same->push_back(&curve);
    } else {
      groups.push_back({&curve});
    }
  }
  std::vector<Plot> plots;
  for (const auto& group : groups) plots.push_back(CurvesPlot(group));
  if (plots.size() % 2 == 1) plots.back().wide = true;
  return plots;
}

std::string Plots(const Section& section) {
  std::string html;
  for (const Plot& plot : LatencyPlots(section)) html += RenderPlot(plot);
  for (const Plot& plot : CurvesPlots(section)) html += RenderPlot(plot);
  return html.empty() ? "" : "<div class=\"plots\">\n" + html + "</div>\n";
}

// --- tables

// A terminal may not have them, a browser does.
std::string Signs(std::string text) {
  if (text.starts_with("<=")) return "\u2264" + text.substr(2);
  if (text.starts_with(">=")) return "\u2265" + text.substr(2);
  return text;
}

std::vector<Cell> FigureCells(const Section& section, const Figure& figure) {
  const Outcome outcome = Evaluate(section, figure);
  std::string against;
  if (figure.against) {
    const Series* baseline = FindSeries(section, figure.against->series);
    against = (baseline == nullptr ? "" : baseline->name + " ") +
              ValueText(section, *figure.against, outcome.against);
  }
  return {Words(figure.name),
          Figures(ValueText(section, figure.value, outcome.value)),
          Words(against),
          Figures(RatioText(figure, outcome.ratio)),
          Figures(outcome.interval ? IntervalText(figure, *outcome.interval) : ""),
          Figures(Signs(TargetText(section, figure))),
          outcome.met ? Cell{Chip(*outcome.met, ResultText(outcome))} : Cell{}};
}

std::vector<Cell> FigureHeader() {
  return {Words("figure"),         Figures("value"),  Words("against"), Figures("ratio"),
          Figures("95% interval"), Figures("target"), Words("")};
}

std::string FiguresTable(const Section& section) {
  if (section.figures.empty()) return "";
  HtmlTable table(FigureHeader());
  for (const Figure& figure : section.figures) table.Add(FigureCells(section, figure));
  return Heading("Figures") + table.Render();
}

std::string SeriesTable(const Section& section) {
  if (section.series.empty()) return "";
  HtmlTable table({Words("series"), Figures("n"), Figures("failed"), Figures("warm-up"),
                   Figures("min"), Figures("p50"), Figures("p90"), Figures("p95"), Figures("p99"),
                   Figures("p99.9"), Figures("max"), Figures("mean")});
  for (const Series& series : section.series) {
    const Summary s = Summarize(series);
    auto number = [&](const std::optional<double>& value) {
      return Figures(Text(series.unit, value));
    };
    Cell failed = Figures(std::to_string(s.failed));
    if (s.failed > 0) failed.html = "<span class=\"failed\">" + failed.html + "</span>";
    table.Add({Words(series.name), Figures(std::to_string(s.count)), failed,
               Figures(std::to_string(series.warm_up)), number(s.min), number(s.p50), number(s.p90),
               number(s.p95), number(s.p99), number(s.p999), number(s.max), number(s.mean)});
  }
  return Heading("Measured") + table.Render();
}

std::string CurvesTable(const Section& section) {
  if (section.curves.empty()) return "";
  HtmlTable table({Words("plot"), Words("curve"), Figures("x"), Figures("y")});
  for (const Curve& curve : section.curves) {
    for (const auto& point : curve.points) {
      table.Add({Words(curve.plot), Words(curve.name), Figures(CountText(point.x) + " " + curve.x),
                 Figures(Text(curve.unit, point.y))});
    }
  }
  return "<details><summary>The curves as numbers</summary>\n" + table.Render() + "</details>\n";
}

std::string Failures(const Section& section) {
  std::string html;
  for (const Series& series : section.series) {
    for (const auto& [reason, times] : series.failures) {
      html += "<li class=\"failed\">" +
              Escape(series.name + ": failed " + std::to_string(times) + "x: " + reason) +
              "</li>\n";
    }
  }
  for (const auto& note : section.notes) html += "<li>" + Escape(note) + "</li>\n";
  return html.empty() ? "" : "<ul class=\"notes\">\n" + html + "</ul>\n";
}

// --- the page

std::string Id(std::size_t section) { return "s" + std::to_string(section); }

std::string Overview(const Report& report) {
  const Tally tally = CountTargets(report);
  if (tally.targets == 0) return "";
  auto header = FigureHeader();
  header.insert(header.begin(), Words("benchmark"));
  HtmlTable table(header);
  for (std::size_t i = 0; i < report.sections.size(); ++i) {
    const Section& section = report.sections[i];
    for (const Figure& figure : section.figures) {
      if (!figure.target) continue;
      auto cells = FigureCells(section, figure);
      cells.insert(cells.begin(),
                   {"<a href=\"#" + Id(i) + "\">" + Escape(section.benchmark) + "</a>"});
      table.Add(cells);
    }
  }
  const std::string told =
      std::to_string(tally.met) + " of " + std::to_string(tally.targets) + " targets met";
  return "<section><div class=\"head\"><h2>Targets</h2>" + Chip(tally.AllMet(), told) + "</div>\n" +
         table.Render() + "</section>\n";
}

std::string RenderSection(const Section& section, std::size_t index) {
  std::string html =
      "<section id=\"" + Id(index) + "\"><h2>" + Escape(section.benchmark) + "</h2>\n";
  if (!section.parameters.empty()) {
    html += "<div class=\"parameters\">";
    for (const auto& [name, value] : section.parameters) {
      html += "<code>" + Escape(name + "=" + value) + "</code>";
    }
    html += "</div>\n";
  }
  return html + Plots(section) + FiguresTable(section) + SeriesTable(section) +
         CurvesTable(section) + Failures(section) + "</section>\n";
}

std::string EnvironmentCard(const Report& report) {
  std::string html = "<section><div class=\"head\"><h2>Environment</h2></div><dl>\n";
  for (const auto& [name, value] : Fields(report.environment)) {
    if (!value.empty()) html += "<dt>" + Escape(name) + "</dt><dd>" + Escape(value) + "</dd>\n";
  }
  if (!report.command.empty()) {
    html += "<dt>command</dt><dd><code>" + Escape(report.command) + "</code></dd>\n";
  }
  return html + "</dl></section>\n";
}

}  // namespace

std::string RenderHtml(const Report& report) {
  std::string benchmarks, nav;
  for (std::size_t i = 0; i < report.sections.size(); ++i) {
    const std::string name = Escape(report.sections[i].benchmark);
    benchmarks += (i == 0 ? "" : ", ") + name;
    nav += "<a href=\"#" + Id(i) + "\">" + name + "</a>";
  }
  const Environment& e = report.environment;
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      // Whatever may stand in a report, the page loads nothing and runs nothing.
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n"
      "<title>Hatchery benchmarks: " +
      benchmarks + "</title>\n<style>" + kStyle + "</style></head>\n<body><main>\n";
  html += "<h1>Hatchery benchmarks</h1>\n<p class=\"soft\">" +
          Escape(e.time + ", on " + std::to_string(e.cores) + " x " + e.cpu + ", " +
                 (e.vmm.empty() ? "" : e.vmm + ", ") + e.accelerator) +
          "</p>\n<nav>" + nav + "</nav>\n" + Overview(report);
  for (std::size_t i = 0; i < report.sections.size(); ++i) {
    html += RenderSection(report.sections[i], i);
  }
  html += EnvironmentCard(report);
  html +=
      "<p class=\"soft\">Percentiles are nearest-rank: each is a sample. One is shown where a "
      "sample lies beyond it: p90 of 10, p95 of 20, p99 of 100, p99.9 of 1,000 samples. Intervals "
      "are of the ratio, by bootstrap.</p>\n";
  return html + "</main></body></html>\n";
}

}  // namespace hatchery::bench
