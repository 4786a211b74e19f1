#include "bench/report_json.h"

#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "base/json.h"
#include "bench/outcome.h"
#include "bench/statistics.h"
#include "bench/text.h"

namespace hatchery::bench {

namespace {

constexpr std::string_view kFormat = "hatchery-bench";

constexpr std::array kUnits = {std::pair{Unit::kSeconds, std::string_view("s")},
                               std::pair{Unit::kBytes, std::string_view("B")},
                               std::pair{Unit::kPerSecond, std::string_view("1/s")}};
constexpr std::array kIs = {std::pair{Target::Is::kAtLeast, std::string_view("at_least")},
                            std::pair{Target::Is::kAtMost, std::string_view("at_most")}};
constexpr std::array kStatistics = {Statistic::kMin, Statistic::kP50,  Statistic::kP90,
                                    Statistic::kP95, Statistic::kP99,  Statistic::kP999,
                                    Statistic::kMax, Statistic::kMean, Statistic::kSum};

template <class Words, class Value>
std::string_view WordOf(const Words& words, Value value) {
  for (const auto& [known, word] : words) {
    if (known == value) return word;
  }
  return "unknown";
}

// --- writing

void Put(Json& json, const char* name, const std::optional<double>& value) {
  if (value) json[name] = *value;
}

Json ToJson(const Summary& summary) {
  Json json = {{"count", summary.count}, {"failed", summary.failed}};
  Put(json, "success_rate", summary.success_rate);
  Put(json, "min", summary.min);
  Put(json, "p50", summary.p50);
  Put(json, "p90", summary.p90);
  Put(json, "p95", summary.p95);
  Put(json, "p99", summary.p99);
  Put(json, "p99.9", summary.p999);
  Put(json, "max", summary.max);
  Put(json, "mean", summary.mean);
  return json;
}

Json ToJson(const Series& series) {
  Json failures = Json::object();
  for (const auto& [reason, times] : series.failures) failures[reason] = times;
  return {{"key", series.key},
          {"name", series.name},
          {"unit", WordOf(kUnits, series.unit)},
          {"warm_up", series.warm_up},
          {"summary", ToJson(Summarize(series))},
          {"failures", std::move(failures)},
          {"samples", series.samples}};
}

Json ToJson(const Curve& curve) {
  Json points = Json::array();
  for (const auto& point : curve.points) points.push_back(Json::array({point.x, point.y}));
  return {{"key", curve.key},
          {"name", curve.name},
          {"plot", curve.plot},
          {"x", curve.x},
          {"y", curve.y},
          {"unit", WordOf(kUnits, curve.unit)},
          {"points", std::move(points)}};
}

Json ToJson(const Number& number, const std::optional<double>& computed) {
  Json json = {{"series", number.series}, {"statistic", Name(number.statistic)}};
  Put(json, "number", computed);
  return json;
}

Json ToJson(const Section& section, const Figure& figure) {
  const Outcome outcome = Evaluate(section, figure);
  Json json = {
      {"key", figure.key}, {"name", figure.name}, {"value", ToJson(figure.value, outcome.value)}};
  if (figure.against) {
    json["against"] = ToJson(*figure.against, outcome.against);
    json["inverse"] = figure.inverse;
  }
  Put(json, "ratio", outcome.ratio);
  if (outcome.interval) {
    json["ratio_interval"] = Json::array({outcome.interval->low, outcome.interval->high});
  }
  if (figure.target) {
    json["target"] = {{"is", WordOf(kIs, figure.target->is)}, {"limit", figure.target->limit}};
    json["met"] = outcome.met.value_or(false);
  }
  Put(json, "missed_by", outcome.missed_by);
  return json;
}

Json ToJson(const Section& section) {
  Json parameters = Json::object();
  for (const auto& [name, value] : section.parameters) parameters[name] = value;
  Json json = {{"benchmark", section.benchmark}, {"parameters", std::move(parameters)},
               {"notes", section.notes},         {"figures", Json::array()},
               {"series", Json::array()},        {"curves", Json::array()}};
  for (const Figure& figure : section.figures) json["figures"].push_back(ToJson(section, figure));
  for (const Series& series : section.series) json["series"].push_back(ToJson(series));
  for (const Curve& curve : section.curves) json["curves"].push_back(ToJson(curve));
  return json;
}

Json ToJson(const Environment& e) {
  return {{"time", e.time},
          {"hatchery", e.hatchery},
          {"commit", e.commit},
          {"cpu", e.cpu},
          {"cores", e.cores},
          {"memory_mib", e.memory_mib},
          {"kernel", e.kernel},
          {"virtualization", e.virtualization},
          {"accelerator", e.accelerator},
          {"vmm", e.vmm},
          {"template_digest", e.template_digest},
          {"load", e.load}};
}

// --- reading

// A place in the document. What is wrong there is noted once, the first time; from then on all
// places are empty, so that a reader runs to its end without asking after every step.
class Place {
 public:
  Place(const Json& json, std::string path, std::string& error)
      : json_(json), path_(std::move(path)), error_(error) {}

  bool Has(const char* name) const { return json_.is_object() && json_.contains(name); }

  Place operator[](const char* name) const {
    if (!json_.is_object()) return Wrong("is no object");
    const auto found = json_.find(name);
    const std::string path = path_.empty() ? name : path_ + "." + name;
    if (found == json_.end()) return Place(kNull, path, error_).Wrong("is missing");
    return {*found, path, error_};
  }

  std::vector<Place> Elements() const {
    std::vector<Place> elements;
    if (!json_.is_array()) {
      Wrong("is no array");
      return elements;
    }
    for (std::size_t i = 0; i < json_.size(); ++i) {
      elements.emplace_back(json_[i], path_ + "[" + std::to_string(i) + "]", error_);
    }
    return elements;
  }

  // What is in an object whose names are free.
  std::vector<std::pair<std::string, Place>> Members() const {
    std::vector<std::pair<std::string, Place>> members;
    if (!json_.is_object()) {
      Wrong("is no object");
      return members;
    }
    for (const auto& [name, value] : json_.items()) {
      members.emplace_back(name, Place(value, path_ + "[\"" + name + "\"]", error_));
    }
    return members;
  }

  std::string String() const {
    if (json_.is_string()) return json_.get<std::string>();
    Wrong("is no string");
    return {};
  }

  bool Bool() const {
    if (json_.is_boolean()) return json_.get<bool>();
    Wrong("is neither true nor false");
    return false;
  }

  double Real() const {
    // JSON can spell numbers that no double holds.
    if (json_.is_number() && std::isfinite(json_.get<double>())) return json_.get<double>();
    Wrong("is no number");
    return 0;
  }

  template <class Integer>
  Integer Count() const {
    if (json_.is_number_unsigned()) {
      const auto count = json_.get<std::uint64_t>();
      if (count <= std::numeric_limits<Integer>::max()) return static_cast<Integer>(count);
    }
    Wrong("is no count");
    return 0;
  }

  template <class Words>
  auto OneOf(const Words& words) const {
    const std::string given = String();
    std::string known;
    for (const auto& [value, word] : words) {
      if (word == given) return value;
      known += (known.empty() ? "" : ", ") + std::string(word);
    }
    Wrong("is '" + given + "', which is none of " + known);
    return words.front().first;
  }

  const Place& Wrong(const std::string& what) const {
    if (error_.empty()) error_ = (path_.empty() ? "it" : path_) + " " + what;
    return *this;
  }

 private:
  static const Json kNull;

  const Json& json_;
  std::string path_;
  std::string& error_;
};
const Json Place::kNull;

Statistic ReadStatistic(const Place& place) {
  std::array<std::pair<Statistic, std::string_view>, kStatistics.size()> words;
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = {kStatistics[i], Name(kStatistics[i])};
  return place.OneOf(words);
}

Series ReadSeries(const Place& place) {
  Series series{.key = place["key"].String(),
                .name = place["name"].String(),
                .unit = place["unit"].OneOf(kUnits),
                .warm_up = place["warm_up"].Count<std::uint64_t>()};
  for (const Place& sample : place["samples"].Elements()) series.samples.push_back(sample.Real());
  for (const auto& [reason, times] : place["failures"].Members()) {
    // Bounded so that sums of them are right.
    series.failures[reason] = times.Count<std::uint32_t>();
  }
  return series;
}

Curve ReadCurve(const Place& place) {
  Curve curve{.key = place["key"].String(),
              .name = place["name"].String(),
              .plot = place["plot"].String(),
              .x = place["x"].String(),
              .y = place["y"].String(),
              .unit = place["unit"].OneOf(kUnits)};
  for (const Place& point : place["points"].Elements()) {
    const auto numbers = point.Elements();
    if (numbers.size() != 2) {
      point.Wrong("is not two numbers");
      break;
    }
    curve.points.push_back({numbers[0].Real(), numbers[1].Real()});
  }
  return curve;
}

Number ReadNumber(const Place& place, const Section& section) {
  Number number{place["series"].String(), ReadStatistic(place["statistic"])};
  if (FindSeries(section, number.series) == nullptr) {
    place["series"].Wrong("is '" + number.series + "', and there is no such series");
  }
  return number;
}

Figure ReadFigure(const Place& place, const Section& section) {
  Figure figure{.key = place["key"].String(),
                .name = place["name"].String(),
                .value = ReadNumber(place["value"], section)};
  if (place.Has("against")) {
    figure.against = ReadNumber(place["against"], section);
    figure.inverse = place["inverse"].Bool();
  }
  if (place.Has("target")) {
    const Place target = place["target"];
    figure.target = {target["is"].OneOf(kIs), target["limit"].Real()};
  }
  return figure;
}

Section ReadSection(const Place& place) {
  Section section{.benchmark = place["benchmark"].String()};
  for (const auto& [name, value] : place["parameters"].Members()) {
    section.parameters[name] = value.String();
  }
  for (const Place& note : place["notes"].Elements()) section.notes.push_back(note.String());
  std::set<std::string> keys;
  for (const Place& each : place["series"].Elements()) {
    section.series.push_back(ReadSeries(each));
    if (!keys.insert(section.series.back().key).second) each["key"].Wrong("is there twice");
  }
  for (const Place& each : place["curves"].Elements()) section.curves.push_back(ReadCurve(each));
  for (const Place& each : place["figures"].Elements()) {
    section.figures.push_back(ReadFigure(each, section));
  }
  return section;
}

Environment ReadEnvironment(const Place& place) {
  return {.time = place["time"].String(),
          .hatchery = place["hatchery"].String(),
          .commit = place["commit"].String(),
          .cpu = place["cpu"].String(),
          .cores = place["cores"].Count<unsigned>(),
          .memory_mib = place["memory_mib"].Count<std::uint64_t>(),
          .kernel = place["kernel"].String(),
          .virtualization = place["virtualization"].String(),
          .accelerator = place["accelerator"].String(),
          .vmm = place["vmm"].String(),
          .template_digest = place["template_digest"].String(),
          .load = place["load"].String()};
}

}  // namespace

std::string ToJsonText(const Report& report) {
  Json json = {{"format", kFormat},
               {"version", kReportVersion},
               {"command", report.command},
               {"environment", ToJson(report.environment)},
               {"sections", Json::array()}};
  for (const Section& section : report.sections) json["sections"].push_back(ToJson(section));
  return DumpJson(json) + "\n";
}

Result<Report> FromJsonText(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, ParseJson(text, "the report"));
  std::string error;
  auto wrong = [&error] {
    return MakeError(Code::kInvalidArgument, "this is no report of `hatchery bench`: " + error);
  };
  const Place root(json, "", error);
  if (const std::string format = root["format"].String(); error.empty() && format != kFormat) {
    root["format"].Wrong("is '" + format + "', not " + std::string(kFormat));
  }
  const int version = root["version"].Count<int>();
  if (error.empty() && version != kReportVersion) {
    return MakeError(Code::kInvalidArgument,
                     "this report is of version " + std::to_string(version) +
                         ", and this program reads version " + std::to_string(kReportVersion));
  }
  if (!error.empty()) return wrong();

  Report report{.environment = ReadEnvironment(root["environment"]),
                .command = root["command"].String()};
  for (const Place& section : root["sections"].Elements()) {
    report.sections.push_back(ReadSection(section));
  }
  if (!error.empty()) return wrong();
  return report;
}

}  // namespace hatchery::bench
