#include "bench/benchmark.h"

namespace hatchery::bench {

Result<Section> MeasureColdStart(const Setup&, const ColdStartPlan&) {
  return Unimplemented("cold_start");
}

}  // namespace hatchery::bench
