#include "cmd/hatchery/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>

#include "cmd/hatchery/exit_code.h"

namespace hatchery::cli {

Interrupt::Scope::Scope(Interrupt& interrupt, std::function<void()> cancel)
    : interrupt_(interrupt) {
  const std::lock_guard lock(interrupt_.mutex_);
  entry_ = interrupt_.cancels_.insert(interrupt_.cancels_.end(), std::move(cancel));
  if (interrupt_.signal_ != 0) (*entry_)();
}

Interrupt::Scope::~Scope() {
  const std::lock_guard lock(interrupt_.mutex_);
  interrupt_.cancels_.erase(entry_);
}

bool Interrupt::Raise(int signal) {
  // Under the lock, so that no callback runs on what its scope has already left.
  const std::lock_guard lock(mutex_);
  if (signal_ == 0) signal_ = signal;
  for (const auto& cancel : cancels_) cancel();
  return !cancels_.empty();
}

int Interrupt::signal() const {
  const std::lock_guard lock(mutex_);
  return signal_;
}

SignalWatcher::SignalWatcher(Interrupt& interrupt) : interrupt_(interrupt) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
  stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { Watch(); });
}

SignalWatcher::~SignalWatcher() {
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void SignalWatcher::Watch() {
  while (true) {
    std::array<pollfd, 2> waiting = {
        {{.fd = signals_.get(), .events = POLLIN}, {.fd = stop_.get(), .events = POLLIN}}};
    if (::poll(waiting.data(), waiting.size(), -1) < 0) continue;
    if (waiting[1].revents != 0) return;
    signalfd_siginfo info{};
    if (::read(signals_.get(), &info, sizeof info) != sizeof info) continue;
    const int signal = static_cast<int>(info.ssi_signo);
    if (!interrupt_.Raise(signal)) ::_exit(kExitSignalled + signal);
  }
}

}  // namespace hatchery::cli
