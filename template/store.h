// Templates on disk, by digest, and in memory.
//
//   <root>/<digest>/manifest   see template/manifest.h; what makes the folder a template
//   <root>/<digest>/memory     the guest's memory, sparse, exactly shape.memory long
//   <root>/<digest>/state      device state as the VMM saved it
//   <root>/.draft-*            a build in progress, or one that was cut short; removed by Open()
//
// A template never changes once it is here. It appears by one rename, after everything in it has
// been synced, so a crash half way leaves a draft and never something that looks whole. Names are
// not the store's business.
//
// Loop thread only; heavy work (copying, hashing, syncing) runs on the worker pool.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/fd.h"
#include "base/offload.h"
#include "base/task.h"
#include "template/manifest.h"

namespace hatchery::tmpl {

// A template in memory, ready to be cloned from. Shared by all its clones; the memory is freed when
// the last reference goes and the last clone has unmapped it.
class LoadedTemplate {
 public:
  LoadedTemplate(Manifest manifest, UniqueFd memory, UniqueFd state)
      : manifest_(std::move(manifest)), memory_(std::move(memory)), state_(std::move(state)) {}

  const Manifest& manifest() const { return manifest_; }
  // A memfd sealed against writing, growing and shrinking: no clone can change it.
  int memory_fd() const { return memory_.get(); }
  // The device state from its start, in an open file of its own.
  Result<UniqueFd> OpenState() const;
  // Memory that the template occupies once, whatever the number of clones.
  Result<Bytes> ResidentSize() const;

 private:
  Manifest manifest_;
  UniqueFd memory_;
  UniqueFd state_;
};

// Done and total bytes of a long operation. Called on the loop.
using Progress = std::function<void(Bytes done, Bytes total)>;

class Store {
 public:
  // Opens (creating) the folder `root` and removes drafts of builds that were cut short. `root`
  // must not be in use by another store: the daemon's lock on its state directory sees to that.
  static Result<std::unique_ptr<Store>> Open(std::filesystem::path root, WorkerPool& workers);
  ~Store();

  // Publishes a template: hashes and writes `memory_fd` (a memfd of manifest.shape.memory bytes
  // that nobody writes any more; zero pages are punched out of it), writes `state_fd` from its
  // start, fills the manifest's chunk hashes, state hash and digest, and returns the complete
  // manifest. On failure (also kResourceExhausted: disk full) nothing is left. The memfd is sealed
  // and kept as the loaded template while anybody holds it.
  Task<std::shared_ptr<const LoadedTemplate>> Publish(Manifest manifest, UniqueFd memory_fd,
                                                      UniqueFd state_fd);

  // Who may hold the memory of a template that is not loaded: the VMMs of its clones. Asked by
  // Load(); it has to stay valid until another is set.
  using Holders = std::function<std::vector<pid_t>(const TemplateDigest&)>;
  void SetHolders(Holders holders);

  // The template in memory: the one that is loaded already; or its memory taken back from one of
  // its holders (take_back.h); or read from disk into a sealed memfd, each chunk checked on the way
  // (kDataLoss names the chunk). Several callers at once share one read.
  Task<std::shared_ptr<const LoadedTemplate>> Load(TemplateDigest digest);

  // kNotFound, or kDataLoss when it cannot be read.
  Result<Manifest> Get(const TemplateDigest& digest) const;

  // What is there; a folder whose manifest cannot be read is listed with the error.
  struct Entry {
    TemplateDigest digest;
    Result<Manifest> manifest;
    Bytes disk_size;  // allocated
  };
  std::vector<Entry> List() const;

  // Reads and checks every byte of manifest, memory and state. kDataLoss names the first
  // difference.
  Task<void> Verify(TemplateDigest digest, Progress progress);

  // Removes it from disk. Loaded ones stay usable for who holds them. kNotFound if there is none.
  Task<void> Delete(TemplateDigest digest);

 private:
  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hatchery::tmpl
