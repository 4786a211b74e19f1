#include "template/chunks.h"

#include <algorithm>

#include "base/notifier.h"

namespace hatchery::tmpl {

namespace {

// Enough to fill the memory bandwidth of a small host. Batches are short (8 MiB, some 5 ms),
// because others wait for the same workers.
constexpr std::size_t kAtOnce = 4;
constexpr std::size_t kBatch = 4;

struct Progress {
  explicit Progress(Executor executor) : changed(std::move(executor)) {}
  std::size_t next = 0;  // the first chunk that nobody has taken
  std::size_t done = 0;
  std::size_t running = 0;
  Result<void> result;
  Notifier changed;
};

asio::awaitable<void> TakeBatches(WorkerPool& workers, std::size_t count,
                                  const std::function<Result<void>(std::size_t)>& work,
                                  const std::function<void(std::size_t)>& done,
                                  Progress& progress) {
  while (progress.result && progress.next < count) {
    const std::size_t begin = progress.next;
    const std::size_t end = std::min(begin + kBatch, count);
    progress.next = end;
    auto result = co_await workers.Run([&work, begin, end]() -> Result<void> {
      for (std::size_t chunk = begin; chunk < end; ++chunk) RETURN_IF_ERROR(work(chunk));
      return {};
    });
    if (!result && progress.result) progress.result = std::unexpected(result.error());
    progress.done += end - begin;
    if (progress.result && done) done(progress.done);
  }
  --progress.running;
  progress.changed.NotifyAll();
}

}  // namespace

Task<void> ForEachChunk(WorkerPool& workers, std::size_t count,
                        std::function<Result<void>(std::size_t chunk)> work,
                        std::function<void(std::size_t chunks)> done) {
  const Executor executor = co_await asio::this_coro::executor;
  Progress progress(executor);
  if (co_await IsCancelled()) progress.result = Cancelled("cancelled");
  TaskScope scope(executor);
  for (std::size_t i = 0; i < kAtOnce; ++i) {
    ++progress.running;  // first: the task may end before Spawn() returns
    scope.Spawn("work on chunks", TakeBatches(workers, count, work, done, progress));
  }
  while (progress.running > 0) {
    auto woken = co_await progress.changed.Wait(Deadline::max());
    if (!woken && progress.result) progress.result = std::unexpected(woken.error());
  }
  co_await scope.Join();
  co_return progress.result;
}

}  // namespace hatchery::tmpl
