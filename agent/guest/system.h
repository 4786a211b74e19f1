// The one seam to the guest's operating system: everything the agent does to the machine as a
// whole. Tests give it a folder as root and override what has effects. Methods may be called from
// any thread, but for Reseed(): one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/status.h"

namespace hatchery::agent::guest {

class GuestSystem {
 public:
  // `root` is put before every path, which is given as the guest knows it ("/sys/…").
  explicit GuestSystem(std::filesystem::path root = "/") : root_(std::move(root)) {}
  virtual ~GuestSystem() = default;
  GuestSystem(const GuestSystem&) = delete;
  GuestSystem& operator=(const GuestSystem&) = delete;

  std::filesystem::path Path(std::string_view path) const;

  // A small file (64 KiB at most) without the white space at its end.
  Result<std::string> Read(std::string_view path) const;
  // Into an existing file of the kernel's (sysfs, procfs), in one write(2).
  virtual Result<void> WriteKernelFile(std::string_view path, std::string_view text);
  // An ordinary file to be rewritten in place (it may be a bind mount), with read and write access;
  // it is created if need be, and missing folders too.
  Result<UniqueFd> OpenFile(std::string_view path) const;

  // Mixes `seed` into the kernel's random number generator, credits all its bits, and reseeds, so
  // that the next random byte depends on it.
  virtual Result<void> Reseed(std::string_view seed);
  virtual Result<void> SetClock(std::int64_t unix_ns);
  virtual Result<void> SetHostname(const std::string& name);
  virtual std::string Hostname() const;
  // Mounts the file `source` over the file `target`.
  virtual Result<void> BindOver(std::string_view source, std::string_view target);
  virtual void Sync();
  // Returns when the kernel has had time to do what it puts off. What is left undone when a
  // template is saved is done again in every clone.
  virtual void Settle();
  // Returns only on failure (or in tests).
  virtual Result<void> PowerOff();

 private:
  const std::filesystem::path root_;
  UniqueFd random_;  // /dev/urandom, once it was needed
};

}  // namespace hatchery::agent::guest
