// A report as text for a terminal, at most kTableWidth columns wide as long as durations and sizes
// are of this world: the environment; for each section what was measured (a row per series), what
// grows with what (a row per point) and the figures with their targets; at the end how many targets
// were met, and which were not. Pure; any thread.
#pragma once

#include <string>

#include "bench/model.h"

namespace hatchery::bench {

inline constexpr int kTableWidth = 120;

std::string RenderTable(const Report& report);

}  // namespace hatchery::bench
