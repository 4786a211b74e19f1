#include "bench/recorder.h"

#include <algorithm>
#include <stdexcept>

namespace hatchery::bench {

Recorder::Recorder(std::string benchmark)
    : first_{Code::kInternal, "the " + benchmark + " benchmark has measured nothing"} {
  section_.benchmark = std::move(benchmark);
}

void Recorder::Parameter(std::string name, std::string value) {
  section_.parameters[std::move(name)] = std::move(value);
}

void Recorder::Note(std::string text) { section_.notes.push_back(std::move(text)); }

void Recorder::Declare(std::string key, std::string name, Unit unit) {
  section_.series.push_back({.key = std::move(key), .name = std::move(name), .unit = unit});
}

void Recorder::Promise(Figure figure) {
  Find(figure.value.series);
  if (figure.against) Find(figure.against->series);
  section_.figures.push_back(std::move(figure));
}

void Recorder::Plot(Curve curve) { section_.curves.push_back(std::move(curve)); }

Series& Recorder::Find(const std::string& key) {
  const auto found = std::ranges::find(section_.series, key, &Series::key);
  if (found == section_.series.end()) throw std::logic_error("no series has the key " + key);
  return *found;
}

void Recorder::Add(const std::string& key, double sample) {
  Series& series = Find(key);
  if (counting_) {
    series.samples.push_back(sample);
  } else {
    ++series.warm_up;
  }
}

void Recorder::Fail(const std::string& key, const Error& error) {
  Series& series = Find(key);
  if (counting_) {
    ++series.failures[std::string(CodeName(error.code))];
  } else {
    ++series.warm_up;
  }
  Trouble(series.name, error);
}

void Recorder::Add(const std::string& key, const Result<double>& attempt) {
  if (attempt) {
    Add(key, *attempt);
  } else {
    Fail(key, attempt.error());
  }
}

void Recorder::Trouble(const std::string& what, const Error& error) {
  if (told_.empty()) first_ = error;
  if (!told_.insert(what + '\n' + std::string(CodeName(error.code))).second) return;
  Note(what + ": " + ToString(error));
}

Result<Section> Recorder::Finish() && {
  const bool any =
      std::ranges::any_of(section_.series, [](const Series& s) { return !s.samples.empty(); });
  if (!any) return std::unexpected(first_);
  return std::move(section_);
}

}  // namespace hatchery::bench
