// The three files of one template's folder: written, read and checked, a chunk at a time.
//
// Blocking, so for a worker; different chunks may be handled on different threads. Every error
// names the file, and the chunk where there is one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "base/fd.h"
#include "base/status.h"
#include "template/manifest.h"

namespace hatchery::tmpl {

inline std::size_t ChunkCount(Bytes memory) { return memory.count() / kChunk.count(); }

// A new file for the memory of a template in `folder`, `size` long and all holes.
Result<UniqueFd> CreateMemoryFile(const std::filesystem::path& folder, Bytes size);

// Copies one chunk from `memory_fd` to `file_fd`. Its hash, or nothing if it is all zeros.
Result<std::string> WriteChunk(int memory_fd, int file_fd, std::size_t chunk);

// Writes the state and the manifest and makes all three files and the folder durable. Refuses a
// manifest that could not be read back (kInvalidArgument).
Result<void> FinishFolder(const std::filesystem::path& folder, int memory_file_fd,
                          std::string_view state, const Manifest& manifest);

// kNotFound if there is no such folder, kDataLoss for everything else that is wrong, also if the
// manifest is that of another digest.
Result<Manifest> ReadManifest(const std::filesystem::path& folder, const TemplateDigest& digest);

// The memory file, whose size is checked.
Result<UniqueFd> OpenMemoryFile(const std::filesystem::path& folder, const Manifest& manifest);

// Reads and checks one chunk; copies it to `memory_fd` unless that is -1.
Result<void> ReadChunk(int file_fd, int memory_fd, const Manifest& manifest, std::size_t chunk);

// The whole device state, checked.
Result<std::string> ReadState(const std::filesystem::path& folder, const Manifest& manifest);

}  // namespace hatchery::tmpl
