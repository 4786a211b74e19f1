#include "bench/benchmark.h"

namespace hatchery::bench {

Result<Section> MeasureBurst(const Setup&, const BurstPlan&) { return Unimplemented("burst"); }

}  // namespace hatchery::bench
