// A real hatcheryd of our own, in a private state directory: started as an operator would, spoken
// to over its socket, and gone with everything it made when this object is.
//
// One thread; besides, a thread of its own reads the daemon's log.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/process.h"
#include "cmd/hatchery/client.h"
#include "cmd/hatchery/interrupt.h"

namespace hatchery::bench {

struct DaemonOptions {
  std::filesystem::path binary;
  std::filesystem::path state_dir;  // the caller's, empty; its content may be removed afterwards
  std::filesystem::path image_dir;
  std::string accelerator;
  std::string qemu;
  std::vector<std::string> arguments = {};  // more of them, for its command line
};

class Daemon {
 public:
  // Returns when it serves. An error holds the end of its log; nothing is left then.
  static Result<std::unique_ptr<Daemon>> Start(asio::io_context& io, cli::Interrupt& interrupt,
                                               DaemonOptions options);
  // Ends it as End() does, if that has not been done.
  ~Daemon();

  cli::Client& client() { return *client_; }
  pid_t pid() const { return process_->pid(); }

  // Destroys all templates and VMs, leased ones too, and ends the daemon with SIGTERM; harder where
  // that fails. Also after an interrupt. The error is the first thing that did not go as it should;
  // no process is left in any case.
  Result<void> End();

 private:
  Daemon(asio::io_context& io, DaemonOptions options);
  Result<void> Spawn();
  Result<void> AwaitReady(cli::Interrupt& interrupt);
  void ReadLog();
  std::string LogTail();
  Result<void> DestroyFactory();
  void KillVmms() const;

  asio::io_context& io_;
  const DaemonOptions options_;
  PosixSpawner spawner_;
  std::unique_ptr<Process> process_;
  std::unique_ptr<cli::Client> client_;
  UniqueFd log_;    // the daemon's stderr
  UniqueFd ready_;  // eventfd: it serves, its log has ended, or we were interrupted
  std::thread reader_;
  std::mutex mutex_;
  std::string log_tail_;  // under mutex_
  bool serving_ = false;  // under mutex_
};

}  // namespace hatchery::bench
