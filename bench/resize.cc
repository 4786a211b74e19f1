#include "bench/benchmark.h"

namespace hatchery::bench {

Result<Section> MeasureResize(const Setup&, const ResizePlan&) { return Unimplemented("resize"); }

}  // namespace hatchery::bench
