// Guest memory in files: memfds and their seals, holes, and the hash of one chunk.
//
// Functions without state; blocking, so for a worker, and safe to call for different chunks of one
// file from several threads.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/status.h"

namespace hatchery::tmpl {

// The granularity in which zeros become holes.
inline constexpr std::size_t kPage = 4096;

// A writable memfd of `size`, all holes, which can be sealed later.
Result<UniqueFd> CreateMemory(Bytes size);

// A sealed memfd that holds `content`.
Result<UniqueFd> CreateSealed(std::string_view content);

// Forbids for ever to write, grow or shrink the memfd. kFailedPrecondition while somebody has it
// mapped writable: the VMM must have ended before. Sealing twice is fine.
Result<void> SealMemory(int memory_fd);

// Whether SealMemory() has been here.
bool IsSealed(int memory_fd);

// Reads `size` bytes at `offset`, without a disk access or an allocation for holes. The answer is
// shorter than `size` where the file ends, and empty if all of it is zeros.
Result<std::string> ReadSparse(int fd, off_t offset, std::size_t size);

// Calls `use(offset in bytes, run)` for each longest run of pages of which none is all zeros (if
// `zeros` is false) or each is (if it is true).
Result<void> ForEachRun(std::string_view bytes, bool zeros,
                        const std::function<Result<void>(std::size_t, std::string_view)>& use);

// Punches the pages of zeros out of `size` bytes at `offset` of a memfd.
Result<void> PunchZeros(int memory_fd, off_t offset, std::size_t size);

// Writes the pages of `bytes` that are not zeros at `offset`; the others stay the holes they are.
Result<void> WriteSparse(int fd, off_t offset, std::string_view bytes);

// Memory or disk space that a file occupies.
Result<Bytes> AllocatedSize(int fd);

}  // namespace hatchery::tmpl
