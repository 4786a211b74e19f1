// `hatchery bench …`: runs benchmarks, shows and compares what they measured.
//
//   hatchery bench cold-start|burst|density|rpc|resize|all   measures, prints the table
//   hatchery bench show FILE.json                            prints the table of a saved report
//   hatchery bench --compare A.json B.json                   two saved reports side by side
//
// The table goes to stdout, with --json and --report also the whole report to files; progress and
// complaints go to stderr. Exit code 0 also where a target is missed, unless --check; 1 where
// something could not be measured or written; 2 for usage; 128 and the signal's number after an
// interrupt, with everything ended that was started, and nothing written.
#pragma once

#include <functional>

#include "bench/benchmark.h"
#include "cmd/hatchery/cli.h"

namespace hatchery::bench {

// What is run: the real ones, or others in tests of the command line.
struct Benchmarks {
  std::function<Result<Section>(const Setup&, const ColdStartPlan&)> cold_start = MeasureColdStart;
  std::function<Result<Section>(const Setup&, const BurstPlan&)> burst = MeasureBurst;
  std::function<Result<Section>(const Setup&, const DensityPlan&)> density = MeasureDensity;
  std::function<Result<Section>(const Setup&, const RpcPlan&)> rpc = MeasureRpc;
  std::function<Result<Section>(const Setup&, const ResizePlan&)> resize = MeasureResize;
};

void AddBenchCommands(CLI::App& app, cli::Context& context, const Benchmarks& benchmarks = {});

}  // namespace hatchery::bench
