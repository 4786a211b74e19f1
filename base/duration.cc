#include "base/duration.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <limits>

namespace hatchery {

namespace {

struct Unit {
  std::string_view name;
  std::int64_t nanoseconds;
};
// Largest first.
constexpr std::array<Unit, 6> kUnits = {{{"h", 3'600'000'000'000},
                                         {"m", 60'000'000'000},
                                         {"s", 1'000'000'000},
                                         {"ms", 1'000'000},
                                         {"us", 1'000},
                                         {"ns", 1}}};

std::string ThreeDigits(double value, const char* unit) {
  const char* format = value < 10 ? "%.2f %s" : value < 100 ? "%.1f %s" : "%.0f %s";
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), format, value, unit);
  return text.data();
}

}  // namespace

Result<std::chrono::nanoseconds> ParseDuration(std::string_view text) {
  auto bad = [&](std::string_view why) {
    return MakeError(Code::kInvalidArgument,
                     "'" + std::string(text) + "' is not a duration: " + std::string(why) +
                         "; write a whole number and a unit, as in 500ms, 10s or 2m");
  };
  std::int64_t number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error == std::errc::result_out_of_range) return bad("it is too long");
  if (error != std::errc() || number < 0) return bad("it does not start with a whole number");

  const std::string_view unit(end, static_cast<std::size_t>(last - end));
  for (const Unit& known : kUnits) {
    if (unit != known.name) continue;
    if (number > std::numeric_limits<std::int64_t>::max() / known.nanoseconds) {
      return bad("it is too long");
    }
    return std::chrono::nanoseconds(number * known.nanoseconds);
  }
  return bad(unit.empty() ? "its unit is missing" : "unknown unit");
}

std::string ToString(std::chrono::nanoseconds duration) {
  if (duration.count() == 0) return "0s";
  for (const Unit& unit : kUnits) {
    if (duration.count() % unit.nanoseconds == 0) {
      return std::to_string(duration.count() / unit.nanoseconds) + std::string(unit.name);
    }
  }
  return {};  // not reached: every count is a multiple of 1 ns
}

std::string ToWholeSeconds(std::chrono::nanoseconds duration) {
  return std::to_string(std::chrono::ceil<std::chrono::seconds>(duration).count()) + " s";
}

std::string ToHuman(std::chrono::nanoseconds duration) {
  const auto ns = static_cast<double>(duration.count());
  if (ns < 999.5e3) return ThreeDigits(ns / 1e3, "us");
  if (ns < 999.5e6) return ThreeDigits(ns / 1e6, "ms");
  if (ns < 59.95e9) return ThreeDigits(ns / 1e9, "s");
  const std::int64_t seconds = (duration.count() + 500'000'000) / 1'000'000'000;
  auto two = [](std::int64_t large, const char* large_unit, std::int64_t small,
                const char* small_unit) {
    return std::to_string(large) + large_unit + std::to_string(small) + small_unit;
  };
  if (seconds < 3600) return two(seconds / 60, "m", seconds % 60, "s");
  if (seconds < 86400) return two(seconds / 3600, "h", seconds % 3600 / 60, "m");
  return two(seconds / 86400, "d", seconds % 86400 / 3600, "h");
}

}  // namespace hatchery
