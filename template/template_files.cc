#include "template/template_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/files.h"
#include "base/sha256.h"
#include "template/memory.h"

namespace hatchery::tmpl {

namespace {

off_t OffsetOf(std::size_t chunk) { return static_cast<off_t>(chunk * kChunk.count()); }

// A file of a template that is missing, too long or unreadable means that the template is damaged.
std::unexpected<Error> AsDataLoss(const Error& error, std::string_view file) {
  if (error.code == Code::kNotFound)
    return DataLoss("the file '" + std::string(file) + "' is gone");
  return DataLoss("the file '" + std::string(file) + "': " + error.message);
}

std::string InChunk(std::size_t chunk) {
  return "the file 'memory', chunk " + std::to_string(chunk) + " (at " +
         ToString(Bytes(chunk * kChunk.count())) + ")";
}

Result<UniqueFd> CreateFile(const std::filesystem::path& path) {
  // Guest memory may hold secrets: nobody else reads it.
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return ErrnoError(errno, "creating " + path.string());
  return fd;
}

Result<void> Sync(int fd, std::string_view file) {
  if (::fsync(fd) != 0) return ErrnoError(errno, "syncing the file '" + std::string(file) + "'");
  return {};
}

Result<void> WriteFile(const std::filesystem::path& path, std::string_view content) {
  ASSIGN_OR_RETURN(UniqueFd fd, CreateFile(path));
  if (auto written = WriteAll(fd.get(), content); !written) {
    return Annotate(written.error(), path.filename().string());
  }
  return Sync(fd.get(), path.filename().string());
}

}  // namespace

Result<UniqueFd> CreateMemoryFile(const std::filesystem::path& folder, Bytes size) {
  ASSIGN_OR_RETURN(UniqueFd fd, CreateFile(folder / "memory"));
  if (::ftruncate(fd.get(), static_cast<off_t>(size.count())) == 0) return fd;
  if (errno == EFBIG)
    return ResourceExhausted("a memory file of " + ToString(size) + " is too large");
  return ErrnoError(errno, "sizing the memory file to " + ToString(size));
}

Result<std::string> WriteChunk(int memory_fd, int file_fd, std::size_t chunk) {
  auto bytes = ReadSparse(memory_fd, OffsetOf(chunk), kChunk.count());
  if (!bytes) return Annotate(bytes.error(), InChunk(chunk));
  if (bytes->empty()) return std::string();
  if (auto written = WriteSparse(file_fd, OffsetOf(chunk), *bytes); !written) {
    return Annotate(written.error(), InChunk(chunk));
  }
  return Sha256Of(*bytes);
}

Result<void> FinishFolder(const std::filesystem::path& folder, int memory_file_fd,
                          std::string_view state, const Manifest& manifest) {
  const std::string encoded = EncodeManifest(manifest);
  if (auto readable = DecodeManifest(encoded); !readable) {
    return InvalidArgument("manifest", readable.error().message);
  }
  RETURN_IF_ERROR(Sync(memory_file_fd, "memory"));
  RETURN_IF_ERROR(WriteFile(folder / "state", state));
  RETURN_IF_ERROR(WriteFile(folder / "manifest", encoded));
  return SyncDirectory(folder);
}

Result<Manifest> ReadManifest(const std::filesystem::path& folder, const TemplateDigest& digest) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return NotFound("no template with digest " + digest.str());
  }
  constexpr Bytes kFrame = Bytes(1024);  // header and checksum, generously
  auto bytes = ReadFile(folder / "manifest", kMaxManifestPayload + kFrame);
  if (!bytes) return AsDataLoss(bytes.error(), "manifest");
  ASSIGN_OR_RETURN(Manifest manifest, DecodeManifest(*bytes));
  if (manifest.digest != digest) {
    return DataLoss("the manifest is that of " + manifest.digest.str());
  }
  return manifest;
}

Result<UniqueFd> OpenMemoryFile(const std::filesystem::path& folder, const Manifest& manifest) {
  UniqueFd fd(::open((folder / "memory").c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return AsDataLoss(ErrnoError(errno, "opening").error(), "memory");
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) {
    return AsDataLoss(ErrnoError(errno, "asking for its size").error(), "memory");
  }
  if (static_cast<std::uint64_t>(info.st_size) != manifest.shape.memory.count()) {
    return DataLoss("the file 'memory' has " + std::to_string(info.st_size) + " bytes instead of " +
                    std::to_string(manifest.shape.memory.count()));
  }
  return fd;
}

Result<void> ReadChunk(int file_fd, int memory_fd, const Manifest& manifest, std::size_t chunk) {
  auto bytes = ReadSparse(file_fd, OffsetOf(chunk), kChunk.count());
  if (!bytes) return DataLoss(InChunk(chunk) + ": " + bytes.error().message);
  const std::string hash = bytes->empty() ? std::string() : Sha256Of(*bytes);
  if (hash != manifest.memory_chunks[chunk]) {
    return DataLoss(InChunk(chunk) + " is not what was saved");
  }
  if (memory_fd < 0) return {};
  if (auto written = WriteSparse(memory_fd, OffsetOf(chunk), *bytes); !written) {
    return Annotate(written.error(), InChunk(chunk));
  }
  return {};
}

Result<std::string> ReadState(const std::filesystem::path& folder, const Manifest& manifest) {
  auto state = ReadFile(folder / "state", kMaxStateSize);
  if (!state) return AsDataLoss(state.error(), "state");
  if (state->size() != manifest.state_size.count()) {
    return DataLoss("the file 'state' has " + std::to_string(state->size()) + " bytes instead of " +
                    std::to_string(manifest.state_size.count()));
  }
  if (Sha256Of(*state) != manifest.state_sha256) {
    return DataLoss("the file 'state' is not what was saved");
  }
  return state;
}

}  // namespace hatchery::tmpl
