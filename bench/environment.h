// On what the figures were measured: without it they mean nothing.
#pragma once

#include "bench/model.h"

namespace hatchery::bench {

// This host as it is now. What cannot be read is "unknown"; accelerator and qemu are the caller's.
Environment DescribeHost();

}  // namespace hatchery::bench
