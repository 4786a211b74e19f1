// Ctrl-C and SIGTERM: what is under way is cancelled where it runs, on the server too, and what was
// taken is given back before the program ends.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "base/fd.h"

namespace hatchery::cli {

// Who wants to know of an interrupt. Thread-safe.
class Interrupt {
 public:
  // For as long as it lives, an interrupt calls `cancel` (on the thread that raises it; at once if
  // it was raised before) and does not end the process. Scopes nest; all are called.
  class Scope {
   public:
    Scope(Interrupt& interrupt, std::function<void()> cancel);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Interrupt& interrupt_;
    std::list<std::function<void()>>::iterator entry_;
  };

  // False if there is no Scope: nothing will react.
  bool Raise(int signal);
  // The signal that was raised, 0 if none.
  int signal() const;

 private:
  mutable std::mutex mutex_;
  int signal_ = 0;
  std::list<std::function<void()>> cancels_;
};

// Turns SIGINT, SIGTERM and SIGHUP into interrupts while it lives; one that nobody reacts to ends
// the process as it would have done by itself. Create it before any other thread: they inherit the
// signal mask that keeps the signals for this one.
class SignalWatcher {
 public:
  explicit SignalWatcher(Interrupt& interrupt);
  ~SignalWatcher();

 private:
  void Watch();

  Interrupt& interrupt_;
  UniqueFd signals_;
  UniqueFd stop_;
  std::thread thread_;
};

}  // namespace hatchery::cli
