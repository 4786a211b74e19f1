// The table of all settings: the one description that the file, the flags and the printed default
// are made from.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cmd/hatcheryd/config.h"

namespace hatchery::daemon {

// How TOML writes a setting's value.
enum class Kind { kText, kInteger, kBoolean };
std::string_view Name(Kind kind);

struct Setting {
  std::string section;  // empty: before the first [section]
  std::string key;
  Kind kind;
  std::string help;  // lines of at most 98 characters
  // Takes the value in its text form; kInvalidArgument says what is allowed.
  std::function<Result<void>(Config&, const std::string&)> set;
  std::function<std::string(const Config&)> get;

  std::string Path() const { return section.empty() ? key : section + "." + key; }
  std::string Flag() const;  // "--template-max-vcpus"
};

// In the order of hatchery.toml, sections together.
const std::vector<Setting>& AllSettings();

// What contradicts what, after all is set: the path of the setting at fault and why.
struct Contradiction {
  std::string path;
  std::string why;
};
std::vector<Contradiction> FindContradictions(const Config& config);

}  // namespace hatchery::daemon
