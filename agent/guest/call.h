// One call in flight, from the frame that asked to the frame that answers. Loop thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "agent/guest/event_loop.h"
#include "base/status.h"

namespace hatchery::agent::guest {

class Call {
 public:
  using Flushed = std::function<void()>;
  // Sends the answer; `flushed`, if any, runs when its last byte has been written.
  using Answer = std::function<void(Result<std::string> payload, Flushed flushed)>;

  Call(std::string payload, Time deadline, Answer answer)
      : payload_(std::move(payload)), deadline_(deadline), answer_(std::move(answer)) {}

  const std::string& payload() const { return payload_; }
  // When the caller stops waiting; Time::max() if it did not say.
  Time deadline() const { return deadline_; }

  // Answers. Does nothing if the call was answered or cancelled before.
  void Finish(Result<std::string> payload, Flushed flushed = {}) {
    on_cancel_ = nullptr;
    if (auto answer = std::exchange(answer_, nullptr)) {
      answer(std::move(payload), std::move(flushed));
    }
  }

  // `stop` runs if the caller goes away before the answer.
  void OnCancel(std::function<void()> stop) { on_cancel_ = std::move(stop); }

  // The caller is gone: nothing will be sent.
  void Cancel() {
    answer_ = nullptr;
    if (auto stop = std::exchange(on_cancel_, nullptr)) stop();
  }

 private:
  std::string payload_;
  Time deadline_;
  Answer answer_;
  std::function<void()> on_cancel_;
};

}  // namespace hatchery::agent::guest
