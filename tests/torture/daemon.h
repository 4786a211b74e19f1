// A hatcheryd that is there to be killed: started, watched and ended from outside, its log kept.
// One thread uses it; another of its own reads the log.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/process.h"
#include "base/status.h"

namespace hatchery::torture {

class Daemon {
 public:
  struct Options {
    std::filesystem::path binary;
    std::filesystem::path state_dir;
    std::vector<std::string> flags;  // after --state-dir
    std::filesystem::path log;       // appended to
  };

  explicit Daemon(Options options) : options_(std::move(options)) {}
  ~Daemon();

  // `environment` is added to the usual one.
  Result<void> Start(std::vector<std::string> environment = {});
  // False when it has ended, or is not ready in time.
  bool WaitReady(std::chrono::milliseconds patience);
  Result<void> Signal(int signal) { return process_->Signal(signal); }
  // How it ended; kDeadlineExceeded when it has not.
  Result<ExitStatus> WaitEnd(std::chrono::milliseconds patience);
  // SIGKILL, and gone.
  void Kill();

  bool started() const { return process_ != nullptr; }
  pid_t pid() const { return process_ ? process_->pid() : 0; }
  const std::filesystem::path& state_dir() const { return options_.state_dir; }
  std::string socket() const { return "unix:" + (options_.state_dir / "hatchery.sock").string(); }
  // What it said since it was started last.
  std::string said() const;
  // From start to ready.
  std::chrono::nanoseconds start_time() const;

 private:
  void ReadLog(UniqueFd pipe);

  Options options_;
  boost::asio::io_context io_;
  PosixSpawner spawner_{io_.get_executor()};
  std::unique_ptr<Process> process_;
  std::thread reader_;
  std::chrono::steady_clock::time_point begun_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  std::string said_;
  bool ready_ = false;
  bool silent_ = false;  // the log has ended
  std::chrono::nanoseconds start_time_{};
};

}  // namespace hatchery::torture
