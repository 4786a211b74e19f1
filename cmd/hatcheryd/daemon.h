// The composition root: the one place where every part is made and joined to the others, and the
// order in which they start and stop.
#pragma once

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "base/status.h"
#include "cache/kv_store.h"
#include "cmd/hatcheryd/config.h"

namespace hatchery::daemon {

// What stands where in the state directory.
struct StatePaths {
  explicit StatePaths(const std::filesystem::path& state_dir);
  std::filesystem::path root;
  std::filesystem::path lock;         // held for as long as a daemon runs
  std::filesystem::path metadata;     // RocksDB
  std::filesystem::path templates;    // see template/store.h
  std::filesystem::path vms;          // one run folder per VM: sockets, console log
  std::filesystem::path accelerator;  // which accelerator was seen to work
};

// What a test may put in the place of the daemon's own parts.
struct Seams {
  // Gets the metadata store as it was opened, gives the one that is used.
  std::function<std::unique_ptr<cache::KvStore>(std::unique_ptr<cache::KvStore>)> wrap_store;
  // Instead of the host's; outlives the daemon.
  const Clock* clock = nullptr;
};

// Runs the daemon on the calling thread until SIGTERM or SIGINT, then stops it in order: no new
// acquires, running ones finish, the server ends, warm VMs go (or stay, as configured), leased VMs
// stay. Returns the error that kept it from starting.
Result<void> RunDaemon(const Config& config, const Seams& seams = {});

}  // namespace hatchery::daemon
