#include "template/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/files.h"

namespace hatchery::tmpl {

namespace {

constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

bool IsZero(std::string_view bytes) {
  // Comparing with itself, shifted by one, is memcmp's vectorised loop.
  return bytes.empty() ||
         (bytes[0] == '\0' && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// The number of bytes at the head of `out` that are read; fewer than asked for only at the end.
Result<std::size_t> ReadAt(int fd, off_t offset, char* out, std::size_t size) {
  std::size_t have = 0;
  while (have < size) {
    const ssize_t n = ::pread(fd, out + have, size - have, offset + static_cast<off_t>(have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "reading memory");
    if (n == 0) break;
    have += static_cast<std::size_t>(n);
  }
  return have;
}

Result<void> WriteAt(int fd, off_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    // A limit on file sizes is a full disk to whoever runs into it.
    if (n < 0 && errno == EFBIG) return ResourceExhausted("the file would exceed RLIMIT_FSIZE");
    if (n < 0) return ErrnoError(errno, "writing memory");
    bytes.remove_prefix(static_cast<std::size_t>(n));
    offset += n;
  }
  return {};
}

}  // namespace

Result<UniqueFd> CreateMemory(Bytes size) {
  UniqueFd fd(::memfd_create("hatchery-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrnoError(errno, "creating a memfd");
  if (::ftruncate(fd.get(), static_cast<off_t>(size.count())) != 0) {
    return ErrnoError(errno, "sizing a memfd to " + ToString(size));
  }
  return fd;
}

Result<UniqueFd> CreateSealed(std::string_view content) {
  ASSIGN_OR_RETURN(UniqueFd fd, CreateMemory(Bytes(content.size())));
  RETURN_IF_ERROR(WriteAt(fd.get(), 0, content));
  RETURN_IF_ERROR(SealMemory(fd.get()));
  return fd;
}

bool IsSealed(int memory_fd) {
  const int present = ::fcntl(memory_fd, F_GET_SEALS);
  return present >= 0 && (present & kSeals) == kSeals;
}

Result<void> SealMemory(int memory_fd) {
  if (IsSealed(memory_fd)) return {};
  if (::fcntl(memory_fd, F_ADD_SEALS, kSeals) == 0) return {};
  if (errno == EBUSY) {
    return FailedPrecondition(
        "the memory cannot be sealed while a process has it mapped writable: its VMM has not "
        "ended");
  }
  return ErrnoError(errno, "sealing the memory");
}

Result<std::string> ReadSparse(int fd, off_t offset, std::size_t size) {
  const off_t end = offset + static_cast<off_t>(size);
  std::string bytes;
  for (off_t at = offset; at < end;) {
    const off_t data = ::lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // holes up to the end of the file
    if (data < 0) return ErrnoError(errno, "looking for data");
    if (data >= end) break;
    off_t hole = ::lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return ErrnoError(errno, "looking for a hole");
    hole = std::min(hole, end);
    if (bytes.empty()) bytes.resize(size);
    const auto want = static_cast<std::size_t>(hole - data);
    ASSIGN_OR_RETURN(std::size_t got, ReadAt(fd, data, bytes.data() + (data - offset), want));
    if (got < want) {
      bytes.resize(static_cast<std::size_t>(data - offset) + got);
      return bytes;
    }
    at = hole;
  }
  if (IsZero(bytes)) bytes.clear();
  return bytes;
}

Result<void> ForEachRun(std::string_view bytes, bool zeros,
                        const std::function<Result<void>(std::size_t, std::string_view)>& use) {
  std::size_t start = 0;  // of the run that `at` is in
  for (std::size_t at = 0; at < bytes.size(); at += kPage) {
    if (IsZero(bytes.substr(at, kPage)) == zeros) continue;
    if (at > start) RETURN_IF_ERROR(use(start, bytes.substr(start, at - start)));
    start = at + kPage;
  }
  if (start < bytes.size()) RETURN_IF_ERROR(use(start, bytes.substr(start)));
  return {};
}

Result<void> PunchZeros(int memory_fd, off_t offset, std::size_t size) {
  auto punch = [&](std::size_t at, std::size_t length) -> Result<void> {
    if (::fallocate(memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    offset + static_cast<off_t>(at), static_cast<off_t>(length)) != 0) {
      return ErrnoError(errno, "punching zero pages out of the memory");
    }
    return {};
  };
  ASSIGN_OR_RETURN(std::string bytes, ReadSparse(memory_fd, offset, size));
  if (bytes.empty()) return punch(0, size);
  return ForEachRun(bytes, /*zeros=*/true,
                    [&](std::size_t at, std::string_view run) { return punch(at, run.size()); });
}

Result<void> WriteSparse(int fd, off_t offset, std::string_view bytes) {
  return ForEachRun(bytes, /*zeros=*/false, [&](std::size_t at, std::string_view run) {
    return WriteAt(fd, offset + static_cast<off_t>(at), run);
  });
}

Result<Bytes> AllocatedSize(int fd) {
  struct stat info;
  if (::fstat(fd, &info) != 0) return ErrnoError(errno, "asking for a file's size");
  constexpr std::uint64_t kBlock = 512;  // the unit of st_blocks, whatever st_blksize says
  return Bytes(static_cast<std::uint64_t>(info.st_blocks) * kBlock);
}

}  // namespace hatchery::tmpl
