// What a torture's journals come to.
#include <algorithm>
#include <cstdio>

#include "tests/torture/run.h"

namespace hatchery::torture {

namespace {

void PrintRecoveries(const std::vector<Json>& lines) {
  std::vector<std::int64_t> took;
  for (const Json& line : lines) {
    if (line.value("did", "") == "daemon ready") took.push_back(line.value("took_us", 0));
  }
  // The first start recovers nothing.
  if (took.size() < 2) return;
  took.erase(took.begin());
  std::ranges::sort(took);
  constexpr double kMs = 1000;
  std::printf("  restarts: %zu, from start to ready p50 %.0f ms, p99 %.0f ms, max %.0f ms\n",
              took.size(), static_cast<double>(took[took.size() / 2]) / kMs,
              static_cast<double>(took[took.size() * 99 / 100]) / kMs,
              static_cast<double>(took.back()) / kMs);
}

}  // namespace

std::vector<std::string> Report(const std::filesystem::path& journals) {
  const auto lines = ReadJournals(journals);
  const Checker checker = CheckJournals(journals, {.grace = std::chrono::seconds(1)});
  std::printf("what happened:\n");
  for (const auto& [what, count] : checker.counts()) {
    if (what != "step")
      std::printf("  %s: %llu\n", what.c_str(), static_cast<unsigned long long>(count));
  }
  std::printf("  VMs handed out: %zu\n", checker.vms().size());
  PrintRecoveries(lines);
  return checker.violations();
}

}  // namespace hatchery::torture
