#include "tests/torture/daemon.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "base/files.h"
#include "base/run.h"

namespace hatchery::torture {

namespace {
// A killed process is gone at once, unless the host is in trouble.
constexpr auto kKilled = std::chrono::seconds(30);
}  // namespace

Daemon::~Daemon() {
  if (process_) Kill();
}

Result<void> Daemon::Start(std::vector<std::string> environment) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return ErrnoError(errno, "making a pipe");
  UniqueFd read(ends[0]), write(ends[1]);
  SpawnRequest request;
  request.argv = {options_.binary.string(), "--state-dir", options_.state_dir.string()};
  request.argv.insert(request.argv.end(), options_.flags.begin(), options_.flags.end());
  request.env = MinimalEnvironment();
  request.env.insert(request.env.end(), environment.begin(), environment.end());
  request.stderr_fd = write.get();
  {
    const std::lock_guard lock(mutex_);
    said_.clear();
    ready_ = silent_ = false;
  }
  begun_ = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(process_, spawner_.Spawn(request));
  reader_ = std::thread([this, pipe = std::move(read)]() mutable { ReadLog(std::move(pipe)); });
  return {};
}

void Daemon::ReadLog(UniqueFd pipe) {
  const UniqueFd file(
      ::open(options_.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  std::array<char, 4096> buffer;
  for (ssize_t n; (n = ::read(pipe.get(), buffer.data(), buffer.size())) > 0;) {
    const std::string_view text(buffer.data(), static_cast<std::size_t>(n));
    (void)WriteAll(file.get(), text);
    const std::lock_guard lock(mutex_);
    said_ += text;
    if (!ready_ && said_.find("ready on") != std::string::npos) {
      ready_ = true;
      start_time_ = std::chrono::steady_clock::now() - begun_;
      changed_.notify_all();
    }
  }
  const std::lock_guard lock(mutex_);
  silent_ = true;
  changed_.notify_all();
}

bool Daemon::WaitReady(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [&] { return ready_ || silent_; });
  return ready_ && !silent_;
}

Result<ExitStatus> Daemon::WaitEnd(std::chrono::milliseconds patience) {
  auto status = RunUntilDone(io_, process_->Wait(After(patience)));
  if (!status) return status;
  reader_.join();
  process_.reset();
  return status;
}

void Daemon::Kill() {
  (void)process_->Signal(SIGKILL);
  (void)WaitEnd(kKilled);
}

std::string Daemon::said() const {
  const std::lock_guard lock(mutex_);
  return said_;
}

std::chrono::nanoseconds Daemon::start_time() const {
  const std::lock_guard lock(mutex_);
  return start_time_;
}

}  // namespace hatchery::torture
