// Debian packages as files: found, fetched and unpacked with apt and dpkg, never installed on the
// host. Loop thread only.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/offload.h"
#include "base/process.h"
#include "base/task.h"

namespace hatchery::image {

// What apt's lists say about the version that apt would install.
struct Package {
  std::string name;
  std::string version;
  std::string depends;    // as in the package's control file
  std::string file_name;  // "busybox-static_1.35.0-4_amd64.deb"
  std::string sha256;     // of that file
};

// One stanza of `apt-cache show`. kDataLoss when a field that is needed is missing.
Result<Package> ParsePackage(std::string_view stanza);

// The first package in `depends` whose name starts with `prefix`; kNotFound.
Result<std::string> FindDependency(const Package& package, std::string_view prefix);

using Progress = std::function<void(std::string)>;

// The methods share a spawner, a worker pool and a deadline for all they do; these outlive it.
class PackageSource {
 public:
  PackageSource(ProcessSpawner& spawner, WorkerPool& workers, Progress progress, Deadline deadline)
      : spawner_(spawner), workers_(workers), progress_(std::move(progress)), deadline_(deadline) {}

  // kNotFound when apt's lists do not have it; as root, they are updated once before that.
  // kInvalidArgument on what is no package name. kFailedPrecondition without apt.
  Task<Package> Find(std::string name);

  // The package's file in `cache`, downloaded unless it is there with the right content.
  Task<std::filesystem::path> Fetch(Package package, std::filesystem::path cache);

  // Unpacks a package's files under `into`, which is created.
  Task<void> Extract(std::filesystem::path file, std::filesystem::path into);

  // Runs a tool; its failure is an error that carries the last of what it said.
  Task<std::string> RunTool(std::vector<std::string> argv);

 private:
  ProcessSpawner& spawner_;
  WorkerPool& workers_;
  Progress progress_;
  Deadline deadline_;
  bool lists_updated_ = false;
};

}  // namespace hatchery::image
