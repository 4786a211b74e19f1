#include "bench/report.h"

#include <chrono>
#include <cstdio>

#include "base/bytes.h"
#include "base/json.h"
#include "bench/statistics.h"
#include "cmd/duration.h"
#include "cmd/hatchery/table.h"

namespace hatchery::bench::old {

namespace {

constexpr int kVersion = 1;

std::string_view Name(Unit unit) { return unit == Unit::kSeconds ? "s" : "B"; }
std::string_view Name(Target::Of of) { return of == Target::Of::kValue ? "value" : "ratio"; }
std::string_view Name(Target::Is is) { return is == Target::Is::kAtLeast ? "at_least" : "at_most"; }

Json ToJson(const Summary& s) {
  return {{"count", s.count}, {"p50", s.p50}, {"p99", s.p99}, {"max", s.max}};
}

Json ToJson(const Figure& figure) {
  Json json = {{"key", figure.key},
               {"name", figure.name},
               {"unit", Name(figure.unit)},
               {"value", ToJson(figure.value)}};
  if (figure.against) {
    json["against"] = {{"name", figure.against->name}, {"value", ToJson(figure.against->value)}};
    json["ratio"] = figure.Ratio().value_or(0);
  }
  if (figure.target) {
    json["target"] = {{"of", Name(figure.target->of)},
                      {"is", Name(figure.target->is)},
                      {"limit", figure.target->limit}};
    json["met"] = figure.Met().value_or(false);
  }
  return json;
}

// Reading throws what nlohmann throws; FromJsonText() turns it into an error.
Summary ReadSummary(const Json& json) {
  return {json.at("count").get<std::size_t>(), json.at("p50").get<double>(),
          json.at("p99").get<double>(), json.at("max").get<double>()};
}

Figure ReadFigure(const Json& json) {
  Figure figure;
  figure.key = json.at("key").get<std::string>();
  figure.name = json.at("name").get<std::string>();
  figure.unit = json.at("unit").get<std::string>() == "s" ? Unit::kSeconds : Unit::kBytes;
  figure.value = ReadSummary(json.at("value"));
  if (json.contains("against")) {
    const Json& against = json["against"];
    figure.against = {against.at("name").get<std::string>(), ReadSummary(against.at("value"))};
  }
  if (json.contains("target")) {
    const Json& target = json["target"];
    const bool of_value = target.at("of").get<std::string>() == "value";
    const bool at_least = target.at("is").get<std::string>() == "at_least";
    figure.target = {of_value ? Target::Of::kValue : Target::Of::kRatio,
                     at_least ? Target::Is::kAtLeast : Target::Is::kAtMost,
                     target.at("limit").get<double>()};
  }
  return figure;
}

Report Read(const Json& json) {
  Report report;
  const Json& environment = json.at("environment");
  report.environment = {.cpu = environment.at("cpu").get<std::string>(),
                        .cores = environment.at("cores").get<unsigned>(),
                        .kernel = environment.at("kernel").get<std::string>(),
                        .accelerator = environment.at("accelerator").get<std::string>(),
                        .qemu = environment.at("qemu").get<std::string>(),
                        .load = environment.at("load").get<std::string>(),
                        .memory_mib = environment.at("memory_mib").get<std::uint64_t>()};
  report.notes = json.at("notes").get<std::vector<std::string>>();
  for (const Json& figure : json.at("figures")) report.figures.push_back(ReadFigure(figure));
  return report;
}

std::string Text(Unit unit, double value) {
  if (unit == Unit::kBytes) return ToString(Bytes(static_cast<std::uint64_t>(value)));
  const auto duration = std::chrono::duration<double>(value);
  return ToHuman(std::chrono::duration_cast<std::chrono::nanoseconds>(duration));
}

std::string Text(Unit unit, const Summary& s) {
  if (s.count == 0) return "not measured";
  if (s.count == 1) return Text(unit, s.max);
  return Text(unit, s.p50) + " / " + Text(unit, s.p99) + " / " + Text(unit, s.max);
}

std::string Number(double number) {
  char text[32];
  std::snprintf(text, sizeof text, number >= 100 ? "%.0f" : "%.2f", number);
  return text;
}

// "384x", or "7.9%" where the target is a share, that is below 1.
std::string RatioText(const Figure& figure, double ratio) {
  const bool share = figure.target && figure.target->is == Target::Is::kAtMost &&
                     figure.target->of == Target::Of::kRatio && figure.target->limit < 1;
  return share ? Number(ratio * 100) + "%" : Number(ratio) + "x";
}

std::string TargetText(const Figure& figure) {
  if (!figure.target) return "";
  const auto& target = *figure.target;
  const std::string sign = target.is == Target::Is::kAtLeast ? ">= " : "<= ";
  if (target.of == Target::Of::kValue) return sign + Text(figure.unit, target.limit);
  return sign + RatioText(figure, target.limit);
}

}  // namespace

Summary Summarize(const std::vector<double>& samples) {
  return {samples.size(), Percentile(samples, 50), Percentile(samples, 99),
          Percentile(samples, 100)};
}

std::optional<double> Figure::Ratio() const {
  if (!against) return std::nullopt;
  const bool times_faster = target && target->is == Target::Is::kAtLeast;
  const double above = times_faster ? against->value.p50 : value.p50;
  const double below = times_faster ? value.p50 : against->value.p50;
  return below > 0 ? above / below : 0;
}

std::optional<bool> Figure::Met() const {
  if (!target) return std::nullopt;
  const bool of_value = target->of == Target::Of::kValue;
  const bool measured = value.count > 0 && (of_value || (against && against->value.count > 0));
  if (!measured) return false;
  const double number = of_value ? value.p50 : *Ratio();
  return target->is == Target::Is::kAtLeast ? number >= target->limit : number <= target->limit;
}

bool Report::AllMet() const {
  for (const Figure& figure : figures) {
    if (!figure.Met().value_or(true)) return false;
  }
  return true;
}

std::string ToJsonText(const Report& report) {
  const auto& e = report.environment;
  Json json = {{"version", kVersion},
               {"environment",
                {{"cpu", e.cpu},
                 {"cores", e.cores},
                 {"kernel", e.kernel},
                 {"accelerator", e.accelerator},
                 {"qemu", e.qemu},
                 {"load", e.load},
                 {"memory_mib", e.memory_mib}}},
               {"notes", report.notes},
               {"figures", Json::array()}};
  for (const Figure& figure : report.figures) json["figures"].push_back(ToJson(figure));
  return DumpJson(json, 2) + "\n";
}

Result<Report> FromJsonText(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, ParseJson(text, "the figures' file"));
  try {
    if (json.at("version").get<int>() != kVersion) {
      return MakeError(Code::kInvalidArgument, "these figures are of another version");
    }
    return Read(json);
  } catch (const Json::exception& e) {
    return MakeError(Code::kInvalidArgument,
                     std::string("this is no file of figures: ") + e.what());
  }
}

std::string Render(const Report& report) {
  using cli::Align;
  cli::Table table({{"FIGURE"},
                    {"P50 / P99 / MAX"},
                    {"AGAINST"},
                    {"RATIO", Align::kRight},
                    {"TARGET", Align::kRight},
                    {""}});
  for (const Figure& figure : report.figures) {
    const auto ratio = figure.Ratio();
    const auto met = figure.Met();
    const std::string against =
        figure.against ? figure.against->name + " " + Text(figure.unit, figure.against->value.p50)
                       : "";
    table.Add({figure.name, Text(figure.unit, figure.value), against,
               ratio ? RatioText(figure, *ratio) : "", TargetText(figure),
               !met ? " " : (*met ? "ok" : "MISSED")});
  }
  const auto& e = report.environment;
  std::string text = "Figures, all from one run:\n\n" + table.Render() + "\n";
  text += cli::RenderFields({{"CPU", std::to_string(e.cores) + " x " + e.cpu},
                             {"memory", std::to_string(e.memory_mib) + " MiB"},
                             {"kernel", e.kernel},
                             {"QEMU", e.qemu + ", " + e.accelerator},
                             {"load before", e.load}});
  for (const auto& note : report.notes) text += "- " + cli::Printable(note) + "\n";
  return text;
}

}  // namespace hatchery::bench::old
