// Files and folders: reading with a cap, publishing atomically, removing what a failure left.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/status.h"

namespace hatchery {

namespace fs = std::filesystem;

// The whole file. kNotFound when it does not exist, kResourceExhausted when it is larger than
// `cap`.
Result<std::string> ReadFile(const fs::path& path, Bytes cap = Bytes::MiB(16));

// The last `size` bytes of a file, or all of it when it is shorter; nothing of a hole that these
// begin with.
Result<std::string> ReadTail(const fs::path& path, Bytes size);

// Keeps the newest part, at least half of `limit`, of a regular file that takes more than `limit`
// of the disk, while somebody appends to it. Where its filesystem can, what comes before is taken
// out; else it becomes a hole, which ReadTail() does not read; else the file is emptied. Does not
// follow a symbolic link. Success when there is no file.
Result<void> KeepNewest(const fs::path& path, Bytes limit);

// Publishes `content` at `path` so that a reader, also after a crash of the host, finds the old
// file or the whole new one: temporary file, fsync, rename, fsync of the folder.
Result<void> WriteFileAtomically(const fs::path& path, std::string_view content,
                                 unsigned mode = 0644);

// Writes all of `content` to a descriptor.
Result<void> WriteAll(int fd, std::string_view content);

// fsync of a folder, which makes renames and new names in it durable.
Result<void> SyncDirectory(const fs::path& path);

// Creates the folder and its missing parents; no error when it is there.
Result<void> MakeDirectories(const fs::path& path, unsigned mode = 0755);

// A folder with a unique name under `parent`, removed with all its content when destroyed unless
// kept. Its name starts with `prefix`.
class TempDir {
 public:
  static Result<TempDir> Create(const fs::path& parent, std::string_view prefix);
  TempDir(TempDir&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TempDir& operator=(TempDir&& other) noexcept;
  ~TempDir();

  const fs::path& path() const { return path_; }
  // The folder stays; returns its path.
  fs::path Keep() { return std::exchange(path_, {}); }

 private:
  explicit TempDir(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

// Removes a file or a folder with all its content; success when there was none.
Result<void> RemoveAll(const fs::path& path);

// The program that is running, and the folder it is in.
fs::path ExecutablePath();

// Takes an exclusive advisory lock on `path` (created if missing) for as long as the result lives.
// kFailedPrecondition when another process holds it; the message names `what` is in use.
Result<UniqueFd> LockFile(const fs::path& path, std::string_view what);

}  // namespace hatchery
