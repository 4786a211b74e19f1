// Is a program able to run where there are no libraries?
#pragma once

#include <filesystem>

#include "base/status.h"

namespace hatchery::image {

// Succeeds for an ELF executable without a dynamic loader (PT_INTERP). kNotFound,
// kFailedPrecondition; the message names the file and says what to do. Reads a few KiB.
Result<void> CheckStaticExecutable(const std::filesystem::path& path);

}  // namespace hatchery::image
