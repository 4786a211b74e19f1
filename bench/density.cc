#include "bench/benchmark.h"

namespace hatchery::bench {

Result<Section> MeasureDensity(const Setup&, const DensityPlan&) {
  return Unimplemented("density");
}

}  // namespace hatchery::bench
