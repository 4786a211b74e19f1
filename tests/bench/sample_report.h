// A report as a real run would leave it: all five benchmarks, latencies with tails, failures, a
// target that is missed, names that want escaping. The same on every host.
#pragma once

#include "bench/model.h"

namespace hatchery::bench {

Report SampleReport();

}  // namespace hatchery::bench
