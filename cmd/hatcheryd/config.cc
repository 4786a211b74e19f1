#include "cmd/hatcheryd/config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <sstream>
#include <toml.hpp>

#include "base/files.h"
#include "cmd/hatcheryd/settings.h"

namespace hatchery::daemon {

namespace {

// Where each setting was given, by its path: "hatchery.toml:12" or "--flag".
using Places = std::map<std::string, std::string>;

std::unexpected<Error> At(const std::string& place, const std::string& why) {
  return MakeError(Code::kInvalidArgument, place + ": " + why);
}

// The usual edit distance: insertions, deletions, changes.
std::size_t Distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, change}));
    }
  }
  return row.back();
}

// "; did you mean 'vcpus'?" or nothing.
std::string Suggestion(std::string_view given, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  std::size_t best_distance = std::max<std::size_t>(2, given.size() / 3) + 1;
  for (const std::string& name : known) {
    const std::size_t distance = Distance(given, name);
    if (distance < best_distance) {
      best = &name;
      best_distance = distance;
    }
  }
  return best == nullptr ? "" : "; did you mean '" + *best + "'?";
}

const Setting* Find(std::string_view section, std::string_view key) {
  for (const Setting& setting : AllSettings()) {
    if (setting.section == section && setting.key == key) return &setting;
  }
  return nullptr;
}

std::vector<std::string> Keys(std::string_view section) {
  std::vector<std::string> keys;
  for (const Setting& setting : AllSettings()) {
    if (setting.section == section) keys.push_back(setting.key);
  }
  return keys;
}

std::vector<std::string> Sections() {
  std::vector<std::string> sections;
  for (const Setting& setting : AllSettings()) {
    if (!setting.section.empty() && (sections.empty() || sections.back() != setting.section)) {
      sections.push_back(setting.section);
    }
  }
  return sections;
}

std::string UnknownKey(const std::string& section, const std::string& key) {
  const std::string path = section.empty() ? key : section + "." + key;
  const std::string start = "there is no setting '" + path + "'";
  if (const std::string near = Suggestion(key, Keys(section)); !near.empty()) return start + near;
  for (const Setting& setting : AllSettings()) {
    if (setting.key == key) {
      return start + (setting.section.empty() ? "; it belongs before the first section"
                                              : "; it belongs in [" + setting.section + "]");
    }
  }
  return start + "; `hatcheryd --print-config` shows all";
}

// The text form of a value if it is of the kind, nothing if it is of another.
std::optional<std::string> AsText(const toml::value& value, Kind kind) {
  switch (kind) {
    case Kind::kText:
      if (value.is_string()) return value.as_string().str;
      return std::nullopt;
    case Kind::kInteger:
      if (value.is_integer()) return std::to_string(value.as_integer());
      return std::nullopt;
    case Kind::kBoolean:
      if (value.is_boolean()) return value.as_boolean() ? "true" : "false";
      return std::nullopt;
  }
  return std::nullopt;
}

std::string Place(const std::string& file_name, const toml::value& value) {
  return file_name + ":" + std::to_string(value.location().line());
}

Result<void> ApplyValue(const std::string& section, const std::string& key,
                        const toml::value& value, const std::string& file_name, Config& config,
                        Places& places) {
  const std::string place = Place(file_name, value);
  const Setting* setting = Find(section, key);
  if (setting == nullptr) return At(place, UnknownKey(section, key));
  const auto text = AsText(value, setting->kind);
  if (!text) {
    return At(place, setting->Path() + " must be " + std::string(Name(setting->kind)) + ", as in " +
                         key + " = " +
                         (setting->kind == Kind::kText ? "\"" + setting->get(Config()) + "\""
                                                       : setting->get(Config())));
  }
  if (auto set = setting->set(config, *text); !set) {
    return At(place, setting->Path() + ": " + set.error().message);
  }
  places[setting->Path()] = place;
  return {};
}

// toml11 keeps tables unordered; errors come in the file's order.
std::vector<std::pair<std::string, const toml::value*>> InOrder(const toml::table& table) {
  std::vector<std::pair<std::string, const toml::value*>> entries;
  for (const auto& [key, value] : table) entries.emplace_back(key, &value);
  std::ranges::sort(entries, {}, [](const auto& entry) {
    return std::pair(entry.second->location().line(), entry.first);
  });
  return entries;
}

Result<void> ApplyTable(const toml::value& root, const std::string& file_name, Config& config,
                        Places& places) {
  const auto sections = Sections();
  for (const auto& [key, value] : InOrder(root.as_table())) {
    const bool is_section = std::ranges::find(sections, key) != sections.end();
    if (!value->is_table() && !is_section) {
      RETURN_IF_ERROR(ApplyValue("", key, *value, file_name, config, places));
      continue;
    }
    if (!is_section) {
      return At(Place(file_name, *value),
                "there is no section [" + key + "]" + Suggestion(key, sections));
    }
    if (!value->is_table()) {
      return At(Place(file_name, *value), "'" + key + "' is a section: write [" + key + "]");
    }
    for (const auto& [inner_key, inner] : InOrder(value->as_table())) {
      RETURN_IF_ERROR(ApplyValue(key, inner_key, *inner, file_name, config, places));
    }
  }
  return {};
}

// toml11 says "[error] toml::parse_x: what is wrong", then draws the place over several lines.
std::string FirstLine(std::string_view what) {
  std::string line(what.substr(0, what.find('\n')));
  if (line.starts_with("[error] ")) line.erase(0, 8);
  if (line.starts_with("toml::")) {
    if (const auto colon = line.find(": "); colon != std::string::npos) line.erase(0, colon + 2);
  }
  return line;
}

// toml11 descends into brackets and dotted keys by recursion. No setting has more than one of
// either, but comments and values may.
bool IsNestedTooDeep(std::string_view text) {
  constexpr int kMost = 64;
  int brackets = 0, dots = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') ++brackets;
    if (c == ']' || c == '}') brackets = std::max(0, brackets - 1);
    if (c == '.') ++dots;
    if (c == '\n' || c == '=') dots = 0;
    if (brackets > kMost || dots > kMost) return true;
  }
  return false;
}

Result<void> ApplyToml(std::string_view text, const std::string& file_name, Config& config,
                       Places& places) {
  if (IsNestedTooDeep(text)) return At(file_name, "its brackets or dots are nested too deep");
  // The edge where toml11's exceptions become errors.
  try {
    std::istringstream stream{std::string(text)};
    const toml::value root = toml::parse(stream, file_name);
    return ApplyTable(root, file_name, config, places);
  } catch (const toml::exception& e) {
    return At(file_name + ":" + std::to_string(e.location().line()), FirstLine(e.what()));
  } catch (const std::exception& e) {
    return At(file_name, FirstLine(e.what()));
  }
}

Result<void> CheckTogether(const Config& config, const Places& places) {
  const auto found = FindContradictions(config);
  if (found.empty()) return {};
  const auto& [path, why] = found.front();
  const auto place = places.find(path);
  if (place == places.end()) return MakeError(Code::kInvalidArgument, path + ": " + why);
  return At(place->second, path + ": " + why);
}

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace

fs::path SocketPath(const Config& config) {
  constexpr std::string_view kScheme = "unix://";
  if (config.endpoint.empty()) return config.state_dir / "hatchery.sock";
  return config.endpoint.substr(kScheme.size());
}

fs::path ImageDir(const Config& config) {
  return config.guest.image_dir.empty() ? config.state_dir / "image" : config.guest.image_dir;
}

std::string DefaultToml() {
  std::string text =
      "# hatcheryd's configuration: every setting with its default. A flag of the same name wins\n"
      "# over this file: [template] max_vcpus is --template-max-vcpus.\n"
      "# Sizes are written as 256MiB or 4GiB, durations as 500ms, 10s or 2m.\n";
  std::string section;
  for (const Setting& setting : AllSettings()) {
    if (setting.section != section) {
      section = setting.section;
      text += "\n[" + section + "]\n";
    } else if (!setting.help.empty()) {
      text += "\n";
    }
    std::istringstream help(setting.help);
    for (std::string line; std::getline(help, line);) text += "# " + line + "\n";
    const std::string value = setting.get(Config());
    text += setting.key + " = " + (setting.kind == Kind::kText ? Quoted(value) : value) + "\n";
  }
  return text;
}

Result<Config> ParseToml(std::string_view text, const std::string& file_name) {
  Config config;
  Places places;
  RETURN_IF_ERROR(ApplyToml(text, file_name, config, places));
  RETURN_IF_ERROR(CheckTogether(config, places));
  return config;
}

Result<Invocation> ParseCommandLine(const std::vector<std::string>& arguments) {
  CLI::App app("Keeps virtual machines warm and hands them out over gRPC.", "hatcheryd");
  app.footer(
      "Every setting of hatchery.toml has a flag, which wins over the file.\n"
      "Example: hatcheryd --state-dir /tmp/hatchery --log-level debug");
  std::string file;
  bool print_config = false;
  app.add_option("--config", file, "The configuration file (hatchery.toml)")->type_name("FILE");
  app.add_flag("--print-config", print_config, "Print a hatchery.toml with every default");
  app.set_version_flag("--version", "hatcheryd " HATCHERY_VERSION);

  const auto& settings = AllSettings();
  std::vector<std::string> values(settings.size());
  std::vector<CLI::Option*> flags;
  for (std::size_t i = 0; i < settings.size(); ++i) {
    const Setting& setting = settings[i];
    std::string help = setting.help.empty() ? "See hatchery.toml" : setting.help;
    std::ranges::replace(help, '\n', ' ');
    flags.push_back(
        app.add_option(setting.Flag(), values[i], help)
            ->type_name(setting.kind == Kind::kBoolean ? "true|false" : "VALUE")
            ->default_str(setting.get(Config()))
            ->group(setting.section.empty() ? "Settings" : "[" + setting.section + "]"));
  }

  // The edge where CLI11's exceptions become errors.
  try {
    // It takes them last first.
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    return PrintAndExit{app.help()};
  } catch (const CLI::CallForVersion& version) {
    return PrintAndExit{std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& e) {
    return MakeError(Code::kInvalidArgument,
                     std::string(e.what()) + "; `hatcheryd --help` lists all options");
  }
  if (print_config) return PrintAndExit{DefaultToml()};

  Config config;
  Places places;
  if (!file.empty()) {
    auto text = ReadFile(file, Bytes::MiB(1));
    if (!text) return Annotate(text.error(), "configuration file " + file);
    RETURN_IF_ERROR(ApplyToml(*text, file, config, places));
  }
  for (std::size_t i = 0; i < settings.size(); ++i) {
    if (flags[i]->count() == 0) continue;
    if (auto set = settings[i].set(config, values[i]); !set) {
      return At(settings[i].Flag(), set.error().message);
    }
    places[settings[i].Path()] = settings[i].Flag();
  }
  RETURN_IF_ERROR(CheckTogether(config, places));
  return config;
}

}  // namespace hatchery::daemon
