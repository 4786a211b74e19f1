// How much memory there is for VMs: a seam, so that tests have hosts of any size.
#pragma once

#include <filesystem>

#include "base/bytes.h"
#include "base/status.h"

namespace hatchery::cache {

struct HostMemory {
  Bytes total;
  Bytes available;  // what could still be used without swapping
};

class HostMemoryReader {
 public:
  virtual ~HostMemoryReader() = default;
  virtual Result<HostMemory> Read() = 0;
};

// As the kernel says: /proc/meminfo, and less where a control group of this process, or one above
// it, has a limit (memory.max of version 2, memory.limit_in_bytes of version 1; page cache that the
// group could drop at once counts as available). Without control groups, or without limits, the
// host's figures. VMMs in groups elsewhere are not held to this process's limits, and then the
// answer is lower than need be. Takes about 0.1 ms; any thread.
class KernelHostMemory final : public HostMemoryReader {
 public:
  // `root` is where the host's file system begins: "/" but in tests.
  explicit KernelHostMemory(std::filesystem::path root = "/") : root_(std::move(root)) {}
  // An error only if the host's own figures cannot be read.
  Result<HostMemory> Read() override;

 private:
  std::filesystem::path root_;
};

}  // namespace hatchery::cache
