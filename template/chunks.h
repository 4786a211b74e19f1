// Work on many chunks at once, on the worker pool.
#pragma once

#include <cstddef>
#include <functional>

#include "base/offload.h"
#include "base/task.h"

namespace hatchery::tmpl {

// Calls `work(chunk)` for each chunk below `count`: on workers, several at a time, in any order.
// The first failure, or a cancellation, ends it once the calls that run have returned.
// `done(chunks)`, which may be empty, is told on the loop how many chunks are through. Loop thread
// only.
Task<void> ForEachChunk(WorkerPool& workers, std::size_t count,
                        std::function<Result<void>(std::size_t chunk)> work,
                        std::function<void(std::size_t chunks)> done = {});

}  // namespace hatchery::tmpl
