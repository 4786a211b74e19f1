// Makers of settings: each ties one field of Config to its text form.
#pragma once

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/duration.h"
#include "cmd/hatcheryd/settings.h"

namespace hatchery::daemon {

using std::chrono::nanoseconds;

inline std::unexpected<Error> Bad(std::string why) {
  return MakeError(Code::kInvalidArgument, std::move(why));
}

// `field` gives a reference to the field of a Config.

template <class Field>
Setting Text(std::string section, std::string key, std::string help, Field field) {
  return {section,
          key,
          Kind::kText,
          help,
          [field](Config& config, const std::string& text) -> Result<void> {
            field(config) = text;
            return {};
          },
          [field](const Config& config) -> std::string { return field(config); }};
}

template <class Field>
Setting Number(std::string section, std::string key, std::string help, std::uint32_t least,
               std::uint32_t most, Field field) {
  return {section,
          key,
          Kind::kInteger,
          help,
          [=](Config& config, const std::string& text) -> Result<void> {
            std::int64_t number = 0;
            const char* const last = text.data() + text.size();
            const auto [end, error] = std::from_chars(text.data(), last, number);
            if (error != std::errc() || end != last || number < least || number > most) {
              return Bad("'" + text + "' is not a whole number from " + std::to_string(least) +
                         " to " + std::to_string(most));
            }
            field(config) = static_cast<std::uint32_t>(number);
            return {};
          },
          [field](const Config& config) { return std::to_string(field(config)); }};
}

template <class Field>
Setting Boolean(std::string section, std::string key, std::string help, Field field) {
  return {section,
          key,
          Kind::kBoolean,
          help,
          [field](Config& config, const std::string& text) -> Result<void> {
            if (text != "true" && text != "false") {
              return Bad("'" + text + "' is neither true nor false");
            }
            field(config) = text == "true";
            return {};
          },
          [field](const Config& config) { return field(config) ? "true" : "false"; }};
}

template <class Field>
Setting Size(std::string section, std::string key, std::string help, Bytes unit, Bytes least,
             Bytes most, Field field) {
  return {
      section,
      key,
      Kind::kText,
      help,
      [=](Config& config, const std::string& text) -> Result<void> {
        ASSIGN_OR_RETURN(const Bytes size, ParseBytes(text));
        if (size < least || size > most) {
          return Bad("'" + text + "' is not between " + ToString(least) + " and " + ToString(most));
        }
        if (!size.IsMultipleOf(unit)) {
          return Bad("'" + text + "' is not a multiple of " + ToString(unit));
        }
        field(config) = size;
        return {};
      },
      [field](const Config& config) {
        std::string text = ToString(field(config));
        std::erase(text, ' ');
        return text;
      }};
}

template <class Field>
Setting Duration(std::string section, std::string key, std::string help, nanoseconds least,
                 nanoseconds most, Field field) {
  return {section,
          key,
          Kind::kText,
          help,
          [=](Config& config, const std::string& text) -> Result<void> {
            ASSIGN_OR_RETURN(const nanoseconds duration, ParseDuration(text));
            if (duration < least || duration > most) {
              return Bad("'" + text + "' is not between " + hatchery::ToString(least) + " and " +
                         hatchery::ToString(most));
            }
            field(config) = duration;
            return {};
          },
          [field](const Config& config) { return hatchery::ToString(field(config)); }};
}

template <class T, class Field>
Setting Choice(std::string section, std::string key, std::string help,
               std::vector<std::pair<std::string, T>> choices, Field field) {
  return {section,
          key,
          Kind::kText,
          help,
          [=](Config& config, const std::string& text) -> Result<void> {
            std::string allowed;
            for (const auto& [name, value] : choices) {
              if (text == name) {
                field(config) = value;
                return {};
              }
              allowed += (allowed.empty() ? "" : ", ") + name;
            }
            return Bad("'" + text + "' is none of " + allowed);
          },
          [=](const Config& config) -> std::string {
            for (const auto& [name, value] : choices) {
              if (field(config) == value) return name;
            }
            return {};
          }};
}

// A path, made absolute when it is set: the daemon works from "/".
template <class Field>
Setting Path(std::string section, std::string key, std::string help, Field field) {
  Setting setting = Text(section, key, help, field);
  setting.set = [=](Config& config, const std::string& text) -> Result<void> {
    field(config) =
        text.empty() ? std::filesystem::path() : std::filesystem::absolute(text).lexically_normal();
    return {};
  };
  return setting;
}

}  // namespace hatchery::daemon
