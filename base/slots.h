// So many at once and no more: a counting semaphore for coroutines, first come, first served. Loop
// thread only.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <utility>

#include "base/notifier.h"
#include "base/task.h"

namespace hatchery {

class Slots {
 public:
  // There is always at least one.
  Slots(Executor executor, std::size_t count)
      : executor_(std::move(executor)), free_(count > 0 ? count : 1) {}

  // Held until it is destroyed, which must be before its Slots is.
  class Slot {
   public:
    explicit Slot(Slots& slots) : slots_(&slots) {}
    Slot(Slot&& other) noexcept : slots_(std::exchange(other.slots_, nullptr)) {}
    Slot& operator=(Slot&&) = delete;
    ~Slot() {
      if (slots_ != nullptr) slots_->Free();
    }

   private:
    Slots* slots_;
  };

  // kDeadlineExceeded or kCancelled if there was none in time.
  Task<Slot> Take(Deadline deadline) {
    if (free_ > 0 && waiting_.empty()) {
      --free_;
      co_return Slot(*this);
    }
    const auto turn = std::make_shared<Turn>(executor_);
    const auto place = waiting_.insert(waiting_.end(), turn);
    auto came = co_await turn->changed.Wait(deadline);
    if (turn->came) {
      Slot slot(*this);
      // Where it came too late it is destroyed here, and the next one's.
      if (!came) co_return std::unexpected(came.error());
      if (co_await IsCancelled()) co_return Cancelled("cancelled while waiting");
      co_return slot;
    }
    waiting_.erase(place);
    co_return std::unexpected(came ? Error{Code::kInternal, "woken without a slot"} : came.error());
  }

 private:
  struct Turn {
    explicit Turn(Executor executor) : changed(std::move(executor)) {}
    Notifier changed;
    bool came = false;
  };
  void Free() {
    if (waiting_.empty()) {
      ++free_;
      return;
    }
    const auto next = waiting_.front();
    waiting_.pop_front();
    next->came = true;
    next->changed.NotifyAll();
  }

  Executor executor_;
  std::size_t free_;
  std::list<std::shared_ptr<Turn>> waiting_;
};

}  // namespace hatchery
