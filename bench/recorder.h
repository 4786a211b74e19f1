// Gathers the section of a benchmark while it runs: what was measured, what failed, and what is to
// be known about it. Nothing is repeated and nothing dropped: an attempt either adds a sample or
// counts as a failure. One thread.
#pragma once

#include <set>
#include <string>
#include <utility>

#include "base/status.h"
#include "bench/model.h"

namespace hatchery::bench {

class Recorder {
 public:
  explicit Recorder(std::string benchmark);

  void Parameter(std::string name, std::string value);
  void Note(std::string text);
  // Series appear in the order in which they are declared.
  void Declare(std::string key, std::string name, Unit unit = Unit::kSeconds);
  // Its series are declared before.
  void Promise(Figure figure);
  void Plot(Curve curve);

  // While false, attempts are warm-ups: they are counted as such, and nothing else is kept of them.
  void set_counting(bool counting) { counting_ = counting; }

  // One attempt at a declared series. A failure counts under its code's name, and the first of each
  // kind leaves its message as a note.
  void Add(const std::string& key, double sample);
  void Fail(const std::string& key, const Error& error);
  void Add(const std::string& key, const Result<double>& attempt);
  // Something that went wrong beside the attempts, such as giving a VM back.
  void Trouble(const std::string& what, const Error& error);

  // What was recorded; or, if no series has a sample, the first error.
  Result<Section> Finish() &&;

 private:
  Series& Find(const std::string& key);

  Section section_;
  bool counting_ = true;
  std::set<std::string> told_;  // kinds of trouble that have their note
  Error first_;
};

}  // namespace hatchery::bench
