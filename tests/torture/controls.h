// What the torture test turns on a running daemon: a page of memory that both map, from a file.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>

#include "base/fd.h"
#include "base/status.h"

namespace hatchery::torture {

struct Controls {
  std::atomic<std::int64_t> wall_offset_ns;  // how far somebody has set the daemon's clock
  std::atomic<std::uint32_t> refuse_writes;  // not 0: the metadata store says that the disk is full
  // Counts down with every state write; at 1 the daemon dies before it, at 2 after it. Twice the
  // number of writes to let pass, that is. 0: not at all.
  std::atomic<std::uint32_t> crash_in;
};

// Shares the page in `path`, which is created when missing. It stays mapped until the end.
Result<Controls*> MapControls(const std::filesystem::path& path);

// The environment of hatcheryd-torture: the file of its controls; a state write to die at, as
// "vm-assigned:after:1"; one to pretend to have made, as "vm-assigned" (so that the test can be
// seen to fail).
inline constexpr const char* kControlsVariable = "TORTURE_CONTROLS";
inline constexpr const char* kCrashVariable = "TORTURE_CRASH";
inline constexpr const char* kDropVariable = "TORTURE_DROP";
// What it says when it dies by its own hand.
inline constexpr const char* kCrashWords = "torture: dies here: ";

}  // namespace hatchery::torture
