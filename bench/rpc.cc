#include "bench/benchmark.h"

namespace hatchery::bench {

Result<Section> MeasureRpc(const Setup&, const RpcPlan&) { return Unimplemented("rpc"); }

}  // namespace hatchery::bench
