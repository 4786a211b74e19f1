// On what something is measured: without it the numbers mean nothing.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "bench/model.h"

namespace hatchery::bench {

// This host as it is now, and this program. What cannot be read is "unknown"; accelerator, vmm and
// template_digest are left empty, for the benchmarks to fill in. Blocks, for some milliseconds.
// Tests give another `root` for /proc and /sys.
Environment DescribeHost(const std::filesystem::path& root = "/");

// What /proc and /sys alone tell of it, without systemd-detect-virt(1): "none", or "a VM"
// with its vendor and product.
std::string GuessVirtualization(const std::filesystem::path& root);

// "kvm" as "kvm, nested" where the host is a VM itself; any other accelerator as it is.
std::string DescribeAccelerator(std::string_view accelerator, const Environment& host);

}  // namespace hatchery::bench
