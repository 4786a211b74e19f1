// The whole run: a daemon of our own, cold boots, bare QEMUs, a pool, acquires, and the figures
// that come of them.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "bench/report.h"
#include "cmd/hatchery/interrupt.h"

namespace hatchery::bench::old {

struct Plan {
  std::filesystem::path image_dir;  // as `hatchery image build` leaves it
  std::filesystem::path daemon;     // hatcheryd
  std::string qemu = "qemu-system-x86_64";
  std::string accelerator = "auto";
  std::uint32_t pool = 50;
  int cold_boots = 3;
  int starts = 12;
  int acquires = 30;
  int resized = 5;
  int warm_ups = 2;  // acquires that are not counted, of either kind
};
// A tenth of the work, for tests: every step happens, no number means much.
Plan Quick(Plan plan);

// Measures. Takes about half a minute under emulation on two cores; every wait is bounded. `say` is
// told what is being done. Whatever happens, an interrupt included (kCancelled), daemon, VMs and
// folder are gone afterwards; that they could not be removed is an error, too.
Result<Report> Measure(const Plan& plan, cli::Interrupt& interrupt,
                       const std::function<void(const std::string&)>& say);

}  // namespace hatchery::bench::old
