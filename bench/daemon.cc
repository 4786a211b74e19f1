#include "bench/daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"
#include "base/run.h"

namespace hatchery::bench {

namespace {

constexpr auto kStartTimeout = std::chrono::seconds(30);
// The daemon gives itself 60 s.
constexpr auto kStopTimeout = std::chrono::seconds(75);
constexpr auto kDestroyTimeout = std::chrono::seconds(60);
constexpr auto kKillTimeout = std::chrono::seconds(10);
constexpr std::size_t kLogTail = 4096;
constexpr std::string_view kReady = "ready on";

}  // namespace

Daemon::Daemon(asio::io_context& io, DaemonOptions options)
    : io_(io), options_(std::move(options)), spawner_(io.get_executor()) {}

Daemon::~Daemon() { (void)End(); }

Result<std::unique_ptr<Daemon>> Daemon::Start(asio::io_context& io, cli::Interrupt& interrupt,
                                              DaemonOptions options) {
  std::unique_ptr<Daemon> daemon(new Daemon(io, std::move(options)));
  RETURN_IF_ERROR(daemon->Spawn());
  auto ready = daemon->AwaitReady(interrupt);
  if (!ready) return std::unexpected(ready.error());
  daemon->client_ = std::make_unique<cli::Client>(
      cli::Target{.socket = daemon->options_.state_dir / "hatchery.sock"}, std::nullopt, interrupt);
  return daemon;
}

Result<void> Daemon::Spawn() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ErrnoError(errno, "making a pipe");
  log_ = UniqueFd(ends[0]);
  const UniqueFd write(ends[1]);
  ready_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (!ready_) return ErrnoError(errno, "making an eventfd");
  SpawnRequest request;
  request.argv = {options_.binary.string(), "--state-dir", options_.state_dir.string(),
                  "--guest-image-dir", options_.image_dir.string(), "--driver-accelerator",
                  options_.accelerator, "--qemu-binary", options_.qemu,
                  // Repeating an acquire must not change what is measured.
                  "--pool-learn", "false"};
  request.argv.insert(request.argv.end(), options_.arguments.begin(), options_.arguments.end());
  request.env = MinimalEnvironment();
  request.stderr_fd = write.get();
  ASSIGN_OR_RETURN(process_, spawner_.Spawn(request));
  reader_ = std::thread([this] { ReadLog(); });
  return {};
}

// Until the daemon has ended, so that it never blocks on a full pipe.
void Daemon::ReadLog() {
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(log_.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    const std::lock_guard lock(mutex_);
    log_tail_.append(buffer, static_cast<std::size_t>(n));
    if (!serving_ && log_tail_.contains(kReady)) {
      serving_ = true;
      ::eventfd_write(ready_.get(), 1);
    }
    if (log_tail_.size() > 2 * kLogTail) log_tail_.erase(0, log_tail_.size() - kLogTail);
  }
  ::eventfd_write(ready_.get(), 1);
}

std::string Daemon::LogTail() {
  const std::lock_guard lock(mutex_);
  return log_tail_;
}

Result<void> Daemon::AwaitReady(cli::Interrupt& interrupt) {
  {
    const cli::Interrupt::Scope scope(interrupt, [this] { ::eventfd_write(ready_.get(), 1); });
    pollfd waiting{.fd = ready_.get(), .events = POLLIN};
    const auto timeout = std::chrono::milliseconds(kStartTimeout);
    while (::poll(&waiting, 1, static_cast<int>(timeout.count())) < 0 && errno == EINTR) {
    }
  }
  if (interrupt.signal() != 0) return Cancelled("interrupted");
  {
    const std::lock_guard lock(mutex_);
    if (serving_) return {};
  }
  return Unavailable(options_.binary.string() + " does not serve; its log ends with: " + LogTail());
}

Result<void> Daemon::DestroyFactory() {
  return client_->Stream(client_->factory(), &v1::Factory::Stub::Destroy, v1::DestroyRequest(),
                         [](const v1::DestroyResponse&) {},
                         {.timeout = kDestroyTimeout, .interruptible = false});
}

Result<void> Daemon::End() {
  if (!process_) return {};
  Result<void> ended;
  if (client_) ended = DestroyFactory();
  (void)process_->Signal(SIGTERM);
  auto status = RunUntilDone(io_, process_->Wait(After(kStopTimeout)));
  if (!status) {
    (void)RunUntilDone(io_, process_->Kill(After(kKillTimeout)));
    if (ended) ended = Unavailable("hatcheryd did not end: " + status.error().message);
  } else if (ended && (status->how != ExitStatus::How::kExited || status->value != 0)) {
    ended = Unavailable("hatcheryd ended with " + ToString(*status) +
                        "; its log ends with: " + LogTail());
  }
  KillVmms();
  reader_.join();
  client_.reset();
  process_.reset();
  return ended;
}

// What a daemon that broke left behind: VMs outlive it by design, but not this run. A VMM's command
// line names its folder in our state directory, which nobody else uses.
void Daemon::KillVmms() const {
  const std::string folder = (options_.state_dir / "vms").string() + "/";
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto command = ReadFile(entry.path() / "cmdline");
    if (!command || !command->contains(folder)) continue;
    const auto identity = IdentifyProcess(std::stoi(name));
    if (!identity) continue;
    auto process = Process::Adopt(io_.get_executor(), *identity);
    if (process) (void)RunUntilDone(io_, (*process)->Kill(After(kKillTimeout)));
  }
}

}  // namespace hatchery::bench
