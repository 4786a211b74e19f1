#include "base/bytes.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <limits>

namespace hatchery {

std::string ToString(Bytes bytes) {
  static constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  auto value = static_cast<double>(bytes.count());
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  const bool whole = value == static_cast<double>(static_cast<std::uint64_t>(value));
  std::snprintf(text.data(), text.size(), whole ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text.data();
}

Result<Bytes> ParseBytes(std::string_view text) {
  auto bad = [&](std::string why) {
    return MakeError(Code::kInvalidArgument, "'" + std::string(text) + "' is not a size: " + why +
                                                 "; write a number and a unit, as in 256MiB or 2G");
  };
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::result_out_of_range) return bad("it is too large");
  if (error != std::errc()) return bad("it does not start with a whole number");

  std::string unit(end, text.data() + text.size());
  if (unit.starts_with(' ')) unit.erase(0, 1);
  std::ranges::transform(unit, unit.begin(), [](unsigned char c) { return std::tolower(c); });
  if (unit.ends_with("ib")) {
    unit.resize(unit.size() - 2);
  } else if (unit.ends_with('b')) {
    unit.resize(unit.size() - 1);
  }
  static constexpr std::string_view kPrefixes = "kmgtpe";
  int shift = 0;
  if (!unit.empty()) {
    const auto at = kPrefixes.find(unit[0]);
    if (unit.size() != 1 || at == std::string_view::npos) return bad("unknown unit");
    shift = 10 * (static_cast<int>(at) + 1);
  }
  constexpr std::uint64_t kMax = std::numeric_limits<std::int64_t>::max();
  if (number > (kMax >> shift)) return bad("it is too large");
  return Bytes(number << shift);
}

}  // namespace hatchery
