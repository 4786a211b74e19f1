#include "template/take_back.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <filesystem>

#include "template/chunks.h"
#include "template/memory.h"
#include "template/template_files.h"

namespace hatchery::tmpl {

namespace {

// A regular file in memory, of `size`. Its kind is asked for before it is opened, since opening
// something else might wait, or have an effect.
bool MayBeMemory(int path_fd, Bytes size) {
  struct stat info{};
  struct statfs system{};
  return ::fstat(path_fd, &info) == 0 && S_ISREG(info.st_mode) &&
         static_cast<std::uint64_t>(info.st_size) == size.count() &&
         ::fstatfs(path_fd, &system) == 0 && system.f_type == TMPFS_MAGIC;
}

Result<UniqueFd> FindSealed(pid_t holder, Bytes size) {
  const std::filesystem::path folder = "/proc/" + std::to_string(holder) + "/fd";
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const UniqueFd pinned(::open(it->path().c_str(), O_PATH | O_CLOEXEC));
    if (!pinned || !MayBeMemory(pinned.get(), size)) continue;
    auto file = Reopen(pinned.get(), O_RDONLY);
    if (file && IsSealed(file->get())) return file;
  }
  if (error) return ErrnoError(error.value(), "listing " + folder.string());
  return NotFound("process " + std::to_string(holder) + " holds no sealed memory of " +
                  ToString(size));
}

}  // namespace

Task<UniqueFd> TakeBack(WorkerPool& workers, pid_t holder, const Manifest& manifest) {
  const Bytes size = manifest.shape.memory;
  ASSIGN_OR_CO_RETURN(UniqueFd memory,
                      co_await workers.Run([&] { return FindSealed(holder, size); }));
  CO_RETURN_IF_ERROR(co_await ForEachChunk(workers, ChunkCount(size), [&](std::size_t chunk) {
    return ReadChunk(memory.get(), -1, manifest, chunk);
  }));
  co_return memory;
}

}  // namespace hatchery::tmpl
