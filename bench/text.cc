#include "bench/text.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/bytes.h"
#include "base/duration.h"

namespace hatchery::bench {

namespace {

// Beyond these, conversions to integers would not be defined.
constexpr double kMaxSeconds = 9e9;
constexpr std::uint64_t kMaxMemoryMib = 1ull << 40;

std::string Format(const char* format, double number) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, number);
  return text.data();
}

// Three digits, as durations have them: ToString(Bytes) has one after the point at most.
std::string BytesText(double bytes) {
  static constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  for (; bytes >= 999.5 && unit + 1 < kUnits.size(); ++unit) bytes /= 1024;
  const char* format = unit == 0 || bytes >= 99.95 ? "%.0f " : bytes >= 9.995 ? "%.1f " : "%.2f ";
  return Format(format, bytes) + kUnits[unit];
}

std::string Positive(Unit unit, double value) {
  switch (unit) {
    case Unit::kSeconds: {
      const std::chrono::duration<double> duration(std::min(value, kMaxSeconds));
      return ToHuman(std::chrono::duration_cast<std::chrono::nanoseconds>(duration));
    }
    case Unit::kBytes: return BytesText(value);
    case Unit::kPerSecond: return Text(value) + "/s";
  }
  return {};
}

bool IsShare(const Figure& figure) {
  return figure.against && figure.target && figure.target->is == Target::Is::kAtMost &&
         figure.target->limit < 1;
}

std::string Ratio(const Figure& figure, double ratio) {
  return IsShare(figure) ? Text(ratio * 100) + "%" : Text(ratio) + "x";
}

// A limit was written by a person: 1000, not 1000.00.
std::string Limit(const Figure& figure, double limit) {
  return IsShare(figure) ? Format("%g%%", limit * 100) : Format("%gx", limit);
}

}  // namespace

std::string Text(Unit unit, double value) {
  if (!std::isfinite(value)) return "-";
  return value < 0 ? "-" + Positive(unit, -value) : Positive(unit, value);
}

std::string Text(Unit unit, const std::optional<double>& value) {
  return value ? Text(unit, *value) : "-";
}

std::string Text(double number) {
  if (!std::isfinite(number)) return "-";
  const double size = std::abs(number);
  if (size >= 1e7) return Format("%.3g", number);
  return Format(size < 9.995 ? "%.2f" : size < 99.95 ? "%.1f" : "%.0f", number);
}

std::string Text(const Interval& interval) {
  // Near 1, what matters is on which side.
  auto text = [](double number) {
    return number > 0.1 && number < 1.9995 ? Format("%.3f", number) : Text(number);
  };
  return text(interval.low) + " to " + text(interval.high);
}

std::string CountText(double count) { return Format("%.7g", count); }

std::string_view Name(Statistic statistic) {
  switch (statistic) {
    case Statistic::kMin: return "min";
    case Statistic::kP50: return "p50";
    case Statistic::kP90: return "p90";
    case Statistic::kP95: return "p95";
    case Statistic::kP99: return "p99";
    case Statistic::kP999: return "p99.9";
    case Statistic::kMax: return "max";
    case Statistic::kMean: return "mean";
    case Statistic::kSum: return "sum";
  }
  return "unknown";
}

std::string ValueText(const Section& section, const Number& number,
                      const std::optional<double>& value) {
  const Series* series = FindSeries(section, number.series);
  if (series == nullptr || !value) return "not measured";
  const std::string text = Text(series->unit, *value);
  if (number.statistic == Statistic::kP50) return text;
  const auto percent = PercentOf(number.statistic);
  const bool stands_in = percent && !Allows(series->samples.size(), *percent);
  return std::string(stands_in ? "max" : Name(number.statistic)) + " " + text;
}

std::string RatioText(const Figure& figure, const std::optional<double>& ratio) {
  return ratio ? Ratio(figure, *ratio) : "-";
}

std::string IntervalText(const Figure& figure, const Interval& interval) {
  if (!IsShare(figure)) return Text(interval);
  return Text(interval.low * 100) + "% to " + Text(interval.high * 100) + "%";
}

std::string TargetText(const Section& section, const Figure& figure) {
  if (!figure.target) return "";
  const std::string sign = figure.target->is == Target::Is::kAtLeast ? ">= " : "<= ";
  if (figure.against) return sign + Limit(figure, figure.target->limit);
  const Series* series = FindSeries(section, figure.value.series);
  return sign + Text(series == nullptr ? Unit::kSeconds : series->unit, figure.target->limit);
}

std::string ResultText(const Outcome& outcome) {
  if (!outcome.met) return "";
  if (*outcome.met) return "ok";
  if (outcome.missed_by) return "MISSED by " + Text(*outcome.missed_by) + "x";
  return outcome.value ? "MISSED" : "MISSED: not measured";
}

std::vector<std::pair<std::string, std::string>> Fields(const Environment& e) {
  std::string memory;
  if (e.memory_mib > 0) memory = ToString(Bytes::MiB(std::min(e.memory_mib, kMaxMemoryMib)));
  return {{"time", e.time},
          {"hatchery", e.hatchery + ", commit " + e.commit},
          {"CPU", std::to_string(e.cores) + " x " + e.cpu},
          {"memory", memory},
          {"kernel", e.kernel},
          {"virtualization", e.virtualization},
          {"accelerator", e.accelerator},
          {"VMM", e.vmm},
          {"template", e.template_digest},
          {"load before", e.load}};
}

std::string Shorten(std::string_view text, std::size_t width) {
  auto starts = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  if (static_cast<std::size_t>(std::ranges::count_if(text, starts)) <= width) {
    return std::string(text);
  }
  std::size_t characters = 0;
  std::size_t end = 0;
  for (; end < text.size(); ++end) {
    if (starts(text[end]) && ++characters == width) break;
  }
  return std::string(text.substr(0, end)) + "\u2026";
}

}  // namespace hatchery::bench
