// A report as one HTML page that needs nothing else: no network, no script, no other file. For each
// section its latency curves (how long the best 50%, 99%, 99.9% took, on a logarithmic scale), its
// curves of one thing against another, and all tables; light or dark as the reader's system is.
// Pure; any thread.
#pragma once

#include <string>

#include "bench/model.h"

namespace hatchery::bench {

std::string RenderHtml(const Report& report);

}  // namespace hatchery::bench
