// The benchmarks. Each is one function: it starts a hatcheryd of its own in a private folder,
// measures, ends everything it started, and returns a section of the report.
//
// All of them: block; bound every wait; end with kCancelled after an interrupt; leave no process
// and no file behind in any case, and say so if they could not. An attempt that fails is counted in
// its series; an error is returned only where nothing could be measured at all.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "bench/model.h"
#include "cmd/hatchery/interrupt.h"

namespace hatchery::bench {

// What all benchmarks need to know.
struct Setup {
  std::filesystem::path image_dir;  // guest image, as `hatchery image build` leaves it
  std::filesystem::path daemon;     // hatcheryd
  std::string qemu = "qemu-system-x86_64";
  std::string accelerator = "auto";
  std::uint32_t vcpus = 1;  // of the template
  Bytes memory = Bytes::MiB(256);
  cli::Interrupt& interrupt;
  // Told what is being done now, and how far it is: "cold boots: 3 of 10".
  std::function<void(const std::string&)> say;
  // What only the benchmark gets to know of the environment (accelerator, vmm, template digest) is
  // filled in here.
  Environment& environment;
};

// Cold boot, clone on demand and acquire, in turn, each to the agent's answer, to the end of a
// first command and of a tenth; then `burst` acquires with their first command at once.
struct ColdStartPlan {
  int samples = 100;    // of acquires and clones
  int cold_boots = 20;  // spread evenly among them: a boot takes seconds
  int warm_ups = 2;     // rounds that are not counted
  std::uint32_t burst = 20;
};
Result<Section> MeasureColdStart(const Setup& setup, const ColdStartPlan& plan);

// `size` acquires at once on a pool of `size`, then the time until the pool is full again; beside a
// single acquire, and `size` bare QEMUs started at the refill's concurrency.
struct BurstPlan {
  std::uint32_t size = 50;
  int rounds = 3;
  int singles = 20;
};
Result<Section> MeasureBurst(const Setup& setup, const BurstPlan& plan);

// Warm clones added, a step at a time, until one of the limits: private memory, proportional set
// size and CPU time per VM as the count grows, the template counted once; again after each has run
// a command; beside a cold-booted VM of the same shape.
struct DensityPlan {
  Bytes limit = Bytes::GiB(2);  // of private memory, all VMs together
  std::uint32_t max_vms = 100;
  std::uint32_t step = 10;
  int cold_boots = 3;
};
Result<Section> MeasureDensity(const Setup& setup, const DensityPlan& plan);

// The service without VMs (fake driver): Acquire beside an empty unary call on the same server, in
// turn, at each concurrency (closed loop), at a given rate (open loop: latency counts from when a
// call was due, not from when it was sent), and with pools of each size.
struct RpcPlan {
  int calls = 2000;  // per point
  std::vector<int> concurrency = {1, 2, 4, 8, 16, 32};
  std::vector<std::uint32_t> pools = {10, 1000, 10000};
  std::vector<double> rates = {};  // calls per second; empty: half and 80% of the measured peak
  std::chrono::seconds open_loop{5};
};
Result<Section> MeasureRpc(const Setup& setup, const RpcPlan& plan);

// An acquire with more vCPUs and memory until the guest uses them, in turn with the bare
// device_add of the same in a running guest; the same acquire when it need not wait for the guest;
// and once its shape is pooled.
struct ResizePlan {
  int samples = 20;
  int warm_ups = 2;
  std::uint32_t vcpus = 1;  // to add
  Bytes memory = Bytes::MiB(256);
};
Result<Section> MeasureResize(const Setup& setup, const ResizePlan& plan);

}  // namespace hatchery::bench
