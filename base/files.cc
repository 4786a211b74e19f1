#include "base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace hatchery {

namespace {

Result<UniqueFd> Open(const fs::path& path, int flags, mode_t mode = 0) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return ErrnoError(errno, "opening " + path.string());
  return fd;
}

Result<std::string> ReadUpTo(int fd, std::size_t limit, const fs::path& path) {
  std::string content;
  std::string buffer(std::min<std::size_t>(limit, 256 << 10), '\0');
  while (content.size() < limit) {
    const ssize_t n = ::read(fd, buffer.data(), std::min(buffer.size(), limit - content.size()));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "reading " + path.string());
    if (n == 0) break;
    content.append(buffer, 0, static_cast<std::size_t>(n));
  }
  return content;
}

}  // namespace

Result<std::string> ReadFile(const fs::path& path, Bytes cap) {
  ASSIGN_OR_RETURN(UniqueFd fd, Open(path, O_RDONLY));
  ASSIGN_OR_RETURN(std::string content, ReadUpTo(fd.get(), cap.count() + 1, path));
  if (content.size() > cap.count()) {
    return ResourceExhausted(path.string() + " is larger than " + ToString(cap));
  }
  return content;
}

Result<std::string> ReadTail(const fs::path& path, Bytes size) {
  ASSIGN_OR_RETURN(UniqueFd fd, Open(path, O_RDONLY));
  const off_t end = ::lseek(fd.get(), 0, SEEK_END);
  if (end < 0) return ErrnoError(errno, "seeking in " + path.string());
  auto start = std::max<off_t>(0, end - static_cast<off_t>(size.count()));
  start = std::max(start, ::lseek(fd.get(), start, SEEK_DATA));
  if (::lseek(fd.get(), start, SEEK_SET) < 0)
    return ErrnoError(errno, "seeking in " + path.string());
  return ReadUpTo(fd.get(), size.count(), path);
}

Result<void> KeepNewest(const fs::path& path, Bytes limit) {
  constexpr std::uint64_t kStatBlock = 512;
  struct stat info{};
  const auto too_large = [&] {
    return S_ISREG(info.st_mode) &&
           static_cast<std::uint64_t>(info.st_blocks) * kStatBlock > limit.count();
  };
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return {};
    return ErrnoError(errno, "looking at " + path.string());
  }
  if (!too_large()) return {};
  ASSIGN_OR_RETURN(UniqueFd fd, Open(path, O_RDWR | O_NOFOLLOW));
  if (::fstat(fd.get(), &info) != 0) return ErrnoError(errno, "looking at " + path.string());
  const auto keep = static_cast<off_t>(limit.count() / 2);
  const off_t cut = (info.st_size - keep) / info.st_blksize * info.st_blksize;
  if (!too_large() || cut <= 0) return {};
  if (::fallocate(fd.get(), FALLOC_FL_COLLAPSE_RANGE, 0, cut) == 0 ||
      ::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, cut) == 0 ||
      ::ftruncate(fd.get(), 0) == 0) {
    return {};
  }
  return ErrnoError(errno, "shortening " + path.string());
}

Result<void> WriteAll(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "writing");
    content.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Result<void> SyncDirectory(const fs::path& path) {
  ASSIGN_OR_RETURN(UniqueFd fd, Open(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return ErrnoError(errno, "syncing the folder " + path.string());
  return {};
}

Result<void> WriteFileAtomically(const fs::path& path, std::string_view content, unsigned mode) {
  std::string temporary = path.string() + ".tmp.XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return ErrnoError(errno, "creating a temporary file beside " + path.string());
  auto fail = [&](Error error) -> std::unexpected<Error> {
    ::unlink(temporary.c_str());
    return Annotate(std::move(error), path.string());
  };
  if (auto written = WriteAll(fd.get(), content); !written) return fail(written.error());
  if (::fchmod(fd.get(), mode) != 0 || ::fsync(fd.get()) != 0) {
    return fail(ErrnoError(errno, "syncing").error());
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return fail(ErrnoError(errno, "renaming").error());
  }
  return SyncDirectory(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

Result<void> MakeDirectories(const fs::path& path, unsigned mode) {
  if (path.empty()) return {};
  if (::mkdir(path.c_str(), mode) == 0) return {};
  if (errno == ENOENT && path.has_parent_path() && path.parent_path() != path) {
    RETURN_IF_ERROR(MakeDirectories(path.parent_path(), mode));
    if (::mkdir(path.c_str(), mode) == 0) return {};
  }
  std::error_code ignored;
  if (errno == EEXIST && fs::is_directory(path, ignored)) return {};
  return ErrnoError(errno == EEXIST ? ENOTDIR : errno, "creating the folder " + path.string());
}

Result<TempDir> TempDir::Create(const fs::path& parent, std::string_view prefix) {
  std::string name = (parent / std::string(prefix)).string() + "XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) {
    return ErrnoError(errno, "creating a temporary folder in " + parent.string());
  }
  return TempDir(name);
}

TempDir& TempDir::operator=(TempDir&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

TempDir::~TempDir() {
  if (path_.empty()) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

Result<void> RemoveAll(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return ErrnoError(error.value(), "removing " + path.string());
  return {};
}

fs::path ExecutablePath() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored);
}

Result<UniqueFd> LockFile(const fs::path& path, std::string_view what) {
  ASSIGN_OR_RETURN(UniqueFd fd, Open(path, O_RDWR | O_CREAT, 0600));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return FailedPrecondition(std::string(what) + " is in use by another process, which holds " +
                                path.string());
    }
    return ErrnoError(errno, "locking " + path.string());
  }
  return fd;
}

}  // namespace hatchery
